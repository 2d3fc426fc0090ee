"""Questions with places for a prompt's words: `{prompt}`, or `{key}` of its metadata; `{{` and `}}` are braces."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from blip3o_grpo.rewards.types import RewardError

_PLACE = re.compile(r"\{\{|\}\}|\{(\w+)\}")


def places(template: str) -> list[str]:
    """Names of a template's places, each once, in their order."""
    return list(dict.fromkeys(found[1] for found in _PLACE.finditer(template) if found[1]))


def fill(template: str, prompt: str, metadata: Mapping[str, Any]) -> str:
    """The question about one prompt.

    Raises:
        RewardError: naming a key that the metadata lack, or whose value is neither text nor a number.
    """

    def value(found: re.Match[str]) -> str:
        name = found[1]
        if name is None:
            return found[0][0]
        if name == "prompt":
            return prompt
        if name not in metadata:
            raise RewardError(f"the question asks for {{{name}}}, and the prompt's line has no key {name!r}")
        held = metadata[name]
        if isinstance(held, bool) or not isinstance(held, str | int | float):
            raise RewardError(f"the question asks for {{{name}}}, which is {type(held).__name__} and no text or number")
        return str(held)

    return _PLACE.sub(value, template)
