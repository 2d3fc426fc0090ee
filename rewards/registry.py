"""Finds rewards by name, without importing any of them before it is asked for.

A name is looked up in the entry-point group `blip3o_grpo.rewards` of all installed packages; `module:Class` is
imported directly, from anywhere Python can import.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from blip3o_grpo.rewards.types import Reward, RewardError

GROUP = "blip3o_grpo.rewards"


@cache
def available_rewards() -> Mapping[str, EntryPoint]:
    """Registered rewards by name, nothing imported. Read once: it opens a file of every installed package."""
    return {entry.name: entry for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name)}


def reward_class(target: str) -> type:
    """The class behind a registered name or `module:Class`.

    Raises:
        RewardError: unknown name (with the nearest known one), module or class that does not exist, an import that
            fails (with its cause), or something that cannot be called to make a reward.
    """
    if ":" not in target:
        known = available_rewards()
        if target not in known:
            raise RewardError(_unknown(target, list(known)))
        location = known[target].value
    else:
        location = target
    module_name, _, attribute = location.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever a plug-in's module raises, the user needs its name and its reason
        raise RewardError(f"reward {target!r}: importing {module_name!r} failed: {_cause(error)}") from error
    found = getattr(module, attribute, None)
    if found is None:
        classes = [name for name, value in vars(module).items() if isinstance(value, type)]
        near = difflib.get_close_matches(attribute, classes, n=1, cutoff=0.5)
        hint = f"; did you mean {module_name}:{near[0]}?" if near else ""
        raise RewardError(f"reward {target!r}: module {module_name!r} has no {attribute!r}{hint}")
    if not isinstance(found, type) or not issubclass(found, Reward):  # the protocol asks for `__call__` only
        raise RewardError(f"reward {target!r} must be a class whose instances can be called, not {found!r}")
    return found


def build_reward(target: str, options: Mapping[str, Any] | None = None) -> Reward:
    """Construct a reward; this is where its models load.

    Args:
        target: registered name or `module:Class`.
        options: keyword arguments of its constructor.

    Raises:
        RewardError: as `reward_class`, or an option the constructor does not know.
    """
    cls = reward_class(target)
    check_options(cls, options or {}, target)
    return cls(**(options or {}))


def check_options(cls: type, options: Mapping[str, Any], name: str) -> None:
    """Check options before models load: names against the constructor's parameters, values by `cls.check_options`.

    Raises:
        RewardError: unknown or missing option, or whatever the class's own `check_options(**options)`, if it has one,
            finds wrong with the values.
    """
    parameters = inspect.signature(cls).parameters
    try:
        inspect.signature(cls).bind(**options)
    except TypeError as error:
        unknown = [key for key in options if key not in parameters]
        near = difflib.get_close_matches(unknown[0], list(parameters), n=1, cutoff=0.5) if unknown else []
        hint = f"; did you mean {near[0]!r}?" if near else f"; it takes: {', '.join(parameters) or 'no options'}"
        raise RewardError(f"reward {name!r}: {error}{hint}") from error
    if hasattr(cls, "check_options"):
        try:
            cls.check_options(**options)
        except TypeError as error:  # a text where a number belongs cannot be compared
            raise RewardError(f"reward {name!r}: an option has the wrong type: {error}") from error


def is_applicable(target: str, prompt: str, metadata: Mapping[str, Any]) -> bool:
    """Whether a reward can score this prompt, as far as its class says so; loads no model.

    A class without `applicable` is taken to score every prompt.
    """
    applicable = getattr(reward_class(target), "applicable", None)
    return applicable is None or bool(applicable(prompt, metadata))


def prompt_needs(target: str) -> str:
    """What a prompt must have for the reward to apply, in the words of its class."""
    return getattr(reward_class(target), "needs", "a prompt that its `applicable` accepts")


def check_prompt(target: str, prompt: str, metadata: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    """Let a reward refuse a prompt it could never score as asked, as far as its class says so; loads no model.

    Raises:
        RewardError: whatever the class's own `check_prompt(prompt, metadata, **options)`, if it has one, finds wrong.
    """
    check = getattr(reward_class(target), "check_prompt", None)
    if check is not None:
        check(prompt, metadata, **options)


def _unknown(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"known rewards: {', '.join(known) or 'none'}"
    return f"unknown reward {name!r}; {hint} (a reward outside the registry is written module:Class)"


def _cause(error: BaseException) -> str:
    """The innermost reason of an import failure, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {error}"
