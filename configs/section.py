"""The base of all sections of a configuration."""

from __future__ import annotations

import typing
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic_core import PydanticCustomError


class Section(BaseModel):
    """Base of all sections: unknown keys are errors, values are immutable, numbers are finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _plain(cls, values: Any) -> Any:
        """Refuse what pydantic or the file system would take for something else."""
        for key, value in values.items() if isinstance(values, dict) else ():
            field = cls.model_fields.get(key)
            inside = value if isinstance(value, list | tuple) else [value]
            if any(isinstance(item, bool) for item in inside) and field and not _takes_bool(field.annotation):
                raise PydanticCustomError("plain", "it takes no true or false", {"key": key, "value": value})
            if isinstance(value, str) and "\0" in value:
                raise PydanticCustomError("plain", "it holds a NUL character", {"key": key, "value": value})
        return values


def _takes_bool(annotation: Any) -> bool:
    return annotation in (bool, Any) or any(_takes_bool(part) for part in typing.get_args(annotation))
