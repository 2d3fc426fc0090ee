"""What a reward may offer beside its scores: the optional base class, and the check that no hook's name is misspelt."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from types import CodeType
from typing import Any, ClassVar, Literal, TypeVar

from blip3o_grpo.rewards.types import RewardBatch, RewardError

Kind = Literal["pointwise", "group"]
KINDS = ("pointwise", "group")
Function = TypeVar("Function", bound=Callable)


@dataclass(frozen=True)
class TagTable:
    """How a reward's held-out scores are broken down: by a tag in the metadata of each prompt."""

    titles: Mapping[str, str]
    """Tag to the title of its row or column, in the order of tables. Other tags follow under their own names."""
    key: str = "tag"
    """Of the metadata, whose value is the tag; prompts without it are counted under `other`."""

    def tag(self, metadata: Mapping[str, Any]) -> str:
        """Tag of a prompt."""
        return str(metadata.get(self.key) or "other")

    def title(self, tag: str) -> str:
        """What tables call a tag."""
        return self.titles.get(tag, tag.replace("_", " ").capitalize())


class RewardBase:
    """Optional base of a reward: every hook with a default that does nothing. A class without it may have them too.

    A hook that is not overridden counts as absent.
    """

    kind: ClassVar[Kind] = "pointwise"
    """`pointwise`: an image's score depends on nothing but the image and its prompt. `group`: every call holds all
    siblings of one prompt and nothing else, and scores may depend on them (a ranking, a comparison), but not on their
    order."""
    needs: ClassVar[str] = "a prompt that its `applicable` accepts"
    """In words, what a prompt must have for the reward to apply."""
    tags: ClassVar[TagTable | None] = None
    """How held-out scores are broken down in evaluations and reports; None: not at all."""
    is_guard: ClassVar[bool] = False
    """Whether the reward guards the look of the images, so that a fall of it is a warning even if it is trained on."""
    expects_spread: ClassVar[bool] = True
    """Whether images of one prompt should differ under it; `doctor` says so where they do not. False for guards."""
    min_reference_images: ClassVar[int] = 1
    """Of the starting policy's images, how many `fit_reference` needs at least: a run's first evaluation gives them."""

    @staticmethod
    def check_options(*_: Any, **options: Any) -> None:
        """Raise RewardError for values out of range, before any model loads; takes the constructor's parameters."""

    @staticmethod
    def is_outcome(**options: Any) -> bool:
        """Whether all scores with these options are 1 (right) or 0 (wrong): what `rollout.dynamic_sampling` asks for. A
        reward that does not say is looked at when it scores."""
        return False

    @staticmethod
    def applicable(prompt: str, metadata: Mapping[str, Any]) -> bool:
        """Whether the reward can score this prompt at all. Prompts are refused by it before any model loads."""
        return True

    @staticmethod
    def check_prompt(prompt: str, metadata: Mapping[str, Any], **options: Any) -> None:
        """Raise RewardError for a prompt whose metadata is wrong, before any model loads."""

    def fit_reference(self, batch: RewardBatch) -> None:
        """Note what the starting policy's images look like; called once before training."""

    def state_dict(self) -> dict[str, Any]:
        """What was noted, as plain values or tensors; kept in the run folder."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned in an earlier process."""

    def explained_scores(self, batch: RewardBatch) -> list[tuple[float | None, dict[str, Any] | None]]:
        """The scores of a call, each with plain data that says why; asked for by evaluations."""
        return [(value, None) for value in self(batch)]

    def __call__(self, batch: RewardBatch) -> list[float | None]:
        """One finite score per image, higher is better; None where the reward does not apply to the prompt."""
        raise NotImplementedError(f"{type(self).__name__} defines no __call__")


BEFORE_MODELS = ("check_options", "is_outcome", "applicable", "check_prompt")
"""Hooks that are called on the class, before there is an instance."""
HOOKS = (*BEFORE_MODELS, "fit_reference", "state_dict", "load_state_dict", "explained_scores")
ATTRIBUTES = ("kind", "needs", "tags", "is_guard", "expects_spread", "min_reference_images")
"""What a reward may declare."""
_NEAR, _NEAR_ATTRIBUTE = 0.88, 0.85  # one letter of `kind` too few is .857


def group_reward(function: Function) -> Function:
    """Decorator of a reward function (or class) that gets all siblings of one prompt in one call.

    @group_reward
    def rank(images, prompts, metadata): ...
    """
    function.kind = "group"
    return function


def offered_hooks(cls: type) -> frozenset[str]:
    """Which hooks a class defines itself, in any of its bases but `RewardBase`."""
    return frozenset(hook for hook in HOOKS if any(hook in vars(base) for base in _own_bases(cls)))


def check_hooks(cls: type, name: str) -> None:
    """Refuse a class with a hook that would never be called, or not as it is written.

    A public method or attribute that nothing in the class itself uses, and whose name is nearly that of a hook the
    class does not define, is taken for a misspelt one.

    Raises:
        RewardError: naming the method or attribute and the nearest hook, or what is wrong with an attribute.
    """
    offered = offered_hooks(cls)
    for hook in sorted(offered.intersection(BEFORE_MODELS)):
        if not isinstance(inspect.getattr_static(cls, hook), staticmethod | classmethod):
            raise RewardError(f"reward {name!r}: {hook} is called before there is an instance; make it a @staticmethod")
    if "state_dict" in offered and "load_state_dict" not in offered:
        raise RewardError(f"reward {name!r} has state_dict but no load_state_dict")
    if "fit_reference" in offered and not {"state_dict", "load_state_dict"} <= offered:
        raise RewardError(f"reward {name!r} has fit_reference, so it needs state_dict and load_state_dict too")
    suspects = {
        key: near
        for base in _own_bases(cls)
        for key, value in vars(base).items()
        if not key.startswith("_") and (near := _misspelt(key, value, cls))
    }
    if suspects:
        used = set(_called_names(cls))
        for key, near in suspects.items():
            if key not in used:
                raise RewardError(f"reward {name!r}: nothing uses {key}; did you mean {near}? (a helper begins with _)")


def _own_bases(cls: type) -> list[type]:
    return [base for base in cls.__mro__ if base not in (object, RewardBase)]


def _function(value: Any) -> Any:
    """What a static or class method wraps; other values as they are."""
    return value.__func__ if isinstance(value, staticmethod | classmethod) else value


def check_declarations(function: Callable, name: str) -> None:
    """Refuse a reward function with an attribute that nothing reads, and that is nearly one a reward may declare.

    Raises:
        RewardError: naming the attribute and the nearest one.
    """
    if not inspect.isfunction(function):
        return
    present = vars(function)
    for key in present:
        near = _nearest(key, ATTRIBUTES, present, _NEAR_ATTRIBUTE)
        if near and key not in _names(function.__code__):
            raise RewardError(f"reward {name!r}: nothing uses {key}; did you mean {near}?")


def _misspelt(key: str, value: Any, cls: type) -> str | None:
    """The hook that a method's or attribute's name nearly is, unless it is one or the class has that hook as well."""
    present = {name for base in _own_bases(cls) for name in vars(base)}
    if inspect.isfunction(_function(value)):
        cut_off = [hook for hook in HOOKS if "_" in key.rstrip("_") and hook.startswith(key) and hook not in present]
        return _nearest(key, HOOKS, present, _NEAR) or next(iter(cut_off), None)
    if isinstance(value, property) or callable(value):
        return None
    return _nearest(key, ATTRIBUTES, present, _NEAR_ATTRIBUTE)


def _nearest(key: str, known: Collection[str], present: Collection[str], cutoff: float) -> str | None:
    """The known name that is not there and that `key` nearly is; None: there is none, or `key` is right."""
    if key in HOOKS + ATTRIBUTES:
        return None
    for right in known:
        plain = (text.replace("_", "").lower() for text in (key, right))
        if right not in present and difflib.SequenceMatcher(None, *plain).ratio() >= cutoff:
            return right
    return None


def _called_names(cls: type) -> Iterator[str]:
    """Names that the code of a class's methods and properties mentions, except each method's own."""
    for base in _own_bases(cls):
        for key, value in vars(base).items():
            function = value.fget if isinstance(value, property) else _function(value)
            if inspect.isfunction(function):
                yield from (name for name in _names(function.__code__) if name != key)


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)
