"""JSON of files that our own programs write, read with types: a mistake is one sentence that names its key.

Strict: `"7"` is no number and `true` no count, as a program that reads on would find out later, or never.
"""

from __future__ import annotations

import json
import math
from typing import Any

from pydantic import TypeAdapter, ValidationError

from blip3o_grpo.configs.mistakes import OBJECT, first_mistake, kind_of
from blip3o_grpo.configs.strict_json import parse_json


def parse_typed(text: str, schema: TypeAdapter) -> Any:
    """The value that `text` is, with the keys that `schema` asks for and any others.

    Raises:
        ValueError: in words, for one line; names the key where there is one.
    """
    try:
        value = parse_json(text)
    except ValueError as error:
        key = _first_not_finite(text)
        raise ValueError(f"{key!r}: {error}" if key else str(error)) from None
    try:
        schema.validate_json(text, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        if first["type"] == "json_invalid":  # pydantic reads fewer levels than Python
            raise ValueError("nested too deeply") from None
        if not first["loc"] and first["type"] != "value_error":
            raise ValueError(f"holds {kind_of(value, json=True)}; {OBJECT}") from None
        raise ValueError(first_mistake(error, json=True)) from None
    return value


def _first_not_finite(text: str) -> str | None:
    """Key of the first number that JSON does not have, or that is beyond a float; None: there is none."""
    try:
        found = next(_not_finite(json.loads(text), ()), None)
    except (ValueError, RecursionError):
        return None
    return ".".join(map(str, found)) if found else None


def _not_finite(value: Any, key: tuple[str | int, ...]) -> Any:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, part in inner:
        yield from _not_finite(part, (*key, name))
    if isinstance(value, float) and not math.isfinite(value):
        yield key
