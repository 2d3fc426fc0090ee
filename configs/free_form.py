"""Looks into what no schema describes, a reward's options and environment: no secret in it, and no NaN.

Configurations are written into run folders and shown in reports, so a secret in one would travel with every copy.
Found are names that say so (`api_key`, `HF_TOKEN`), URLs with a user's name or password, and the formats of well-known
tokens. Left out on purpose: guessing by how random a text looks.
"""

from __future__ import annotations

import math
import re
from typing import Any

from blip3o_grpo.configs.secret_names import KNOWN_FORMAT, URL_USER, is_secret_name

_REFERENCE = re.compile(r"\$(\w+|\{\w+\})|<[^<>]*>")
"""`${VARIABLE}`, which whoever uses the value expands, or a word like `<s>`."""


def check_free_form(values: Any, place: str) -> None:
    """Refuse literal secrets, NaN and infinity anywhere in nested plain values; messages never show the value.

    Args:
        values: mappings, lists, texts, numbers.
        place: dotted key of `values`, for messages.

    Raises:
        ValueError: naming the key and what to do instead.
    """
    if isinstance(values, dict):
        for key, value in values.items():
            here = f"{place}.{key}"
            if isinstance(value, str) and value and is_secret_name(str(key)) and not _REFERENCE.fullmatch(value):
                raise _secret(here)
            check_free_form(value, here)
    elif isinstance(values, list | tuple):
        for index, value in enumerate(values):
            check_free_form(value, f"{place}.{index}")
    elif isinstance(values, float) and not math.isfinite(values):
        raise ValueError(f"{place} is {values}; give a finite number")
    elif isinstance(values, str) and (KNOWN_FORMAT.search(values) or URL_USER.search(values)):
        raise _secret(place)


def _secret(place: str) -> ValueError:
    return ValueError(
        f"{place} looks like a secret, and configurations are saved and shown in reports; put it into an environment "
        "variable and name that: ${VARIABLE} in runtime_env.env_vars, an option such as token_env elsewhere"
    )
