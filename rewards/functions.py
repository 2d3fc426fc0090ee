"""Plain functions as rewards: `def brightness(images, prompts, metadata, **options) -> list[float | None]`."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from blip3o_grpo.rewards.hooks import RewardBase
from blip3o_grpo.rewards.types import RewardBatch, RewardError

GIVEN = ("images", "prompts", "metadata")
"""What every call gives a function, by keyword."""
EXPECTED = "def NAME(images, prompts, metadata, **options) -> list[float | None]"


class FunctionReward(RewardBase):
    """A function with its options, as a reward.

    Args:
        function: called with `images` (each `[H, W, 3]` uint8 RGB), `prompts`, `metadata` and the options, by keyword.
        options: of every call.
    """

    def __init__(self, function: Callable[..., list[float | None]], options: Mapping[str, Any]) -> None:
        self.function = function
        self.options = dict(options)
        self.kind = getattr(function, "kind", "pointwise")

    def __call__(self, batch: RewardBatch) -> list[float | None]:
        """What the function returns."""
        given = dict(zip(GIVEN, (batch.images, batch.prompts, batch.metadata), strict=True))
        return self.function(**given, **self.options)


def check_function(function: Callable, name: str) -> None:
    """Refuse what cannot be called as a reward function is.

    Raises:
        RewardError: saying what is expected.
    """
    if inspect.iscoroutinefunction(function):
        raise RewardError(f"reward {name!r} is an async function; expected {EXPECTED}")
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # some built-in functions have none
        raise RewardError(f"reward {name!r} has no signature to read; expected {EXPECTED}") from None
    named = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    anything = any(p.kind is p.VAR_KEYWORD for p in parameters)
    missing = [key for key in GIVEN if key not in named and not (anything and key != "images")]
    positional = [p.name for p in parameters if p.kind is p.POSITIONAL_ONLY and p.default is p.empty]
    if missing or positional:
        wrapped = any(p.kind is p.VAR_POSITIONAL for p in parameters)
        hidden = " (a decorator around it needs functools.wraps)" if wrapped else ""
        reason = f"takes no {missing[0]!r}{hidden}" if missing else f"takes {positional[0]!r} by position only"
        raise RewardError(f"reward {name!r}: its function {reason}; expected {EXPECTED}")


def check_function_options(function: Callable, options: Mapping[str, Any], name: str) -> None:
    """Check the names of options against the function's keyword parameters.

    Where the function takes any (`**options`), only a name that is nearly one of its own is refused.

    Raises:
        RewardError: unknown or missing option.
    """
    parameters = inspect.signature(function).parameters.values()
    own = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and p.name not in GIVEN]
    anything = any(p.kind is p.VAR_KEYWORD for p in parameters)
    names = [p.name for p in own]
    for option in options:
        if option in GIVEN:
            raise RewardError(f"reward {name!r}: {option!r} is given with every call and is no option")
        near = difflib.get_close_matches(option, names, n=1, cutoff=0.8 if anything else 0.5)
        if option not in names and (near or not anything):
            hint = f"did you mean {near[0]!r}?" if near else f"it takes: {', '.join(names) or 'no options'}"
            raise RewardError(f"reward {name!r}: it has no option {option!r}; {hint}")
    required = [p.name for p in own if p.default is p.empty and p.name not in options]
    if required:
        raise RewardError(f"reward {name!r}: its option {required[0]!r} is required")
