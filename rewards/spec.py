"""What a reward is to the rest of the project: one adapter of classes and functions, so nobody else probes them."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from blip3o_grpo.rewards.functions import FunctionReward, check_function, check_function_options
from blip3o_grpo.rewards.hooks import KINDS, Kind, RewardBase, TagTable, check_declarations, check_hooks, offered_hooks
from blip3o_grpo.rewards.types import Reward, RewardBatch, RewardError, checked_scores, score

Judged = list[tuple[float | None, Mapping[str, Any] | None]]
"""Score and explanation of every image of a batch."""
_WRONG = "reward {!r} must be a class whose instances can be called, or a function, not {!r}"


@dataclass(frozen=True)
class RewardSpec:
    """A reward before it is built: what it declares and how it is checked. Loads no model."""

    name: str
    """As its user wrote it."""
    target: Callable
    """The class, or the function."""
    kind: Kind
    needs: str
    tags: TagTable | None
    is_guard: bool
    expects_spread: bool
    hooks: frozenset[str]
    """Which hooks of `RewardBase` the class has."""
    min_reference_images: int = 1
    note: str | None = None
    """What its user should hear, in one line: which of two of one name was taken."""

    def check_options(self, options: Mapping[str, Any]) -> None:
        """Check options before models load: their names, and by `check_options` their values.

        Raises:
            RewardError: unknown or missing option, or what the reward finds wrong with a value.
        """
        if isinstance(self.target, type):
            check_options(self.target, options, self.name)
        else:
            check_function_options(self.target, options, self.name)

    def is_outcome(self, options: Mapping[str, Any]) -> bool | None:
        """Whether all scores with these options are 0 or 1; None: the reward does not say."""
        return bool(self.target.is_outcome(**options)) if "is_outcome" in self.hooks else None

    def applies(self, prompt: str, metadata: Mapping[str, Any]) -> bool:
        """Whether the reward can score this prompt, as far as it says so."""
        return "applicable" not in self.hooks or bool(self.target.applicable(prompt, metadata))

    def check_prompt(self, prompt: str, metadata: Mapping[str, Any], options: Mapping[str, Any]) -> None:
        """Let the reward refuse a prompt it could never score as asked; raises RewardError."""
        if "check_prompt" in self.hooks:
            self.target.check_prompt(prompt, metadata, **options)

    def build(self, options: Mapping[str, Any] | None = None) -> LoadedReward:
        """Construct the reward; this is where its models load.

        Raises:
            RewardError: an option it does not know.
            Exception: whatever its constructor raises.
        """
        options = dict(options or {})
        self.check_options(options)
        instance = self.target(**options) if isinstance(self.target, type) else FunctionReward(self.target, options)
        return LoadedReward(instance, self)


@dataclass(frozen=True)
class LoadedReward:
    """A reward that was built, with what it offers."""

    instance: Any
    """A `Reward`; which hooks of `RewardBase` it has besides stands in `spec.hooks`."""
    spec: RewardSpec

    @property
    def kind(self) -> Kind:
        """`group` also where only the built reward knows it, as one behind HTTP does."""
        return "group" if getattr(self.instance, "kind", None) == "group" else self.spec.kind

    @property
    def fits_reference(self) -> bool:
        """Whether the reward compares with the starting policy's images."""
        return "fit_reference" in self.spec.hooks

    @property
    def has_state(self) -> bool:
        return "state_dict" in self.spec.hooks

    def score(self, batch: RewardBatch, name: str | None = None) -> list[float | None]:
        """As `blip3o_grpo.rewards.score`."""
        return score(self.instance, batch, name or self.spec.name)

    def explained_scores(self, batch: RewardBatch, name: str | None = None) -> Judged:
        """Like `score`, each score with its explanation, both from one look at the image.

        The explanation is None where the reward does not apply, and for a reward that explains nothing.
        """
        name = name or self.spec.name
        if "explained_scores" not in self.spec.hooks:
            return [(value, None) for value in self.score(batch, name)]
        pairs = self.instance.explained_scores(batch)
        scores = checked_scores(name, [value for value, _ in pairs], batch)
        return [(value, explanation) for value, (_, explanation) in zip(scores, pairs, strict=True)]


def describe(found: Any, name: str, note: str | None = None) -> RewardSpec:
    """The adapter of a class or function.

    Raises:
        RewardError: it is neither, has the wrong signature, or a hook or attribute with a misspelt name.
    """
    if not isinstance(found, type):
        if not callable(found):
            raise RewardError(_WRONG.format(name, found))
        check_function(found, name)
        check_declarations(found, name)
    elif not issubclass(found, Reward):  # the protocol asks for `__call__` only
        raise RewardError(_WRONG.format(name, found))
    else:
        check_hooks(found, name)
    declared = {key: getattr(found, key, getattr(RewardBase, key)) for key in ("kind", "needs", "tags")}
    if not isinstance(declared["tags"], TagTable | None):
        raise RewardError(f"reward {name!r}: its `tags` must be a TagTable, not {type(declared['tags']).__name__}")
    return RewardSpec(
        name,
        found,
        _kind(declared["kind"], name),
        declared["needs"],
        declared["tags"],
        is_guard=bool(getattr(found, "is_guard", False)),
        expects_spread=bool(getattr(found, "expects_spread", True)),
        hooks=offered_hooks(found) if isinstance(found, type) else frozenset(),
        min_reference_images=int(getattr(found, "min_reference_images", 1)),
        note=note,
    )


def adapt(reward: Reward) -> LoadedReward:
    """The adapter of a reward that somebody has built."""
    return LoadedReward(reward, describe(type(reward), type(reward).__name__))


def check_options(cls: type, options: Mapping[str, Any], name: str) -> None:
    """Check options of a class: names against the constructor's parameters, values by `cls.check_options`.

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
    if "check_options" in offered_hooks(cls):
        try:
            cls.check_options(**options)
        except TypeError as error:  # a text where a number belongs cannot be compared
            raise RewardError(f"reward {name!r}: an option has the wrong type: {error}") from error


def _kind(kind: Any, name: str) -> Kind:
    if kind not in KINDS:
        near = difflib.get_close_matches(str(kind), KINDS, n=1)
        raise RewardError(f"reward {name!r}: unknown kind {kind!r}; did you mean {(near or KINDS)[0]!r}?")
    return kind
