"""`check_reward`: the conformance test that authors of rewards run on their own class or function.

from blip3o_grpo.rewards import check_reward
print(check_reward(brightness, options={"strength": 2}, prompts="prompts.jsonl", images=[image, other]))
"""

from __future__ import annotations

import copy
import inspect
import io
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from blip3o_grpo.rewards.check_inputs import author_batch, example_batch
from blip3o_grpo.rewards.registry import find_reward
from blip3o_grpo.rewards.spec import LoadedReward, RewardSpec, adapt, describe
from blip3o_grpo.rewards.types import Reward, RewardBatch, RewardError, partly_none

__all__ = ["CheckedReward", "check_reward", "example_batch", "require_storable"]

MAX_GROUPS = 4
"""Prompts whose siblings are scored together."""


@dataclass(repr=False)
class CheckedReward:
    """What `check_reward` found; shown with one line per promise, by `print` as in a notebook."""

    name: str
    kind: str
    scores: list[float | None]
    """Of the images, in their order."""
    promises: list[str] = field(default_factory=list)
    """What was tested, and held."""

    def __iter__(self) -> Iterator[float | None]:
        """The scores."""
        return iter(self.scores)

    def __repr__(self) -> str:
        shown = ", ".join("None" if score is None else f"{score:.3f}" for score in self.scores[:8])
        more = ", ..." if len(self.scores) > 8 else ""
        return "\n".join(
            [
                f"reward {self.name} ({self.kind})",
                *(f"  ok  {text}" for text in self.promises),
                f"scores: {shown}{more}",
            ]
        )


def check_reward(
    reward: Reward | type | Callable | str,
    batch: RewardBatch | None = None,
    *,
    images: Sequence[Any] | None = None,
    prompts: Sequence[str | Mapping[str, Any]] | str | Path | None = None,
    options: Mapping[str, Any] | None = None,
    tolerance: float = 1e-4,
    allow_none: bool = False,
    folder: str | Path | None = None,
) -> CheckedReward:
    """Check that a reward keeps the promises the training loop relies on.

    Checked of every reward: options survive pickling (they travel to worker processes); one finite float or None per
    image; the same scores again on a second call; images and metadata are not changed; of the images of one prompt all
    are scored or none; something was scored; `applicable`, if there is one, agrees with None; `explained_scores`, if
    there is one, gives the same scores; `state_dict`, if there is one, survives being stored.

    Of a pointwise reward also: the same scores one image at a time and in reverse order (so scores do not depend on the
    batch an image happens to be in), and an empty list for an empty batch. Of a group reward instead: all images are
    given as siblings of each prompt, in one call, and the scores follow the siblings when their order changes.

    Args:
        reward: a class or function to be given `options`, a registered name or `module:name`, or an instance.
        batch: what to score, at least two images (default: `example_batch()`, or made of `images` and `prompts`).
        images: the author's own, PIL or arrays, as `blip3o_grpo.rewards.images.as_rgb` takes them.
        prompts: the author's own: texts, mappings with `prompt` and metadata, or a prompt file (.txt, .jsonl). The
            shorter of images and prompts is repeated.
        options: keyword arguments for the constructor or function.
        tolerance: largest difference that counts as the same score.
        allow_none: a reward that scores nothing here passes.
        folder: where `module:name` is looked for first (default: the working folder).

    Returns:
        The scores, and the promises that were tested.

    Raises:
        RewardError: the first promise that is broken, in words.
    """
    if batch is None:
        batch = author_batch(images, prompts)
    elif images is not None or prompts is not None:
        raise RewardError("check_reward takes a batch, or images and prompts, not both")
    if len(batch) < 2:
        raise RewardError("check_reward needs a batch of at least two images")
    batch = _copy(batch)
    loaded, promises = _load(reward, options, folder, batch)
    check = _Check(loaded, tolerance, CheckedReward(loaded.spec.name, loaded.kind, [], promises))
    if loaded.kind == "group":
        check.groups(batch)
    else:
        check.images(batch)
    check.something(allow_none)
    check.applicable(batch)
    check.explained(batch)
    check.state(batch)
    return check.result


def _load(
    reward: Any, options: Mapping[str, Any] | None, folder: str | Path | None, batch: RewardBatch
) -> tuple[LoadedReward, list[str]]:
    """The reward, built and fitted unless it is an instance, and the promises that this has shown."""
    spec = _spec(reward, folder)
    if spec is None:
        if options:
            raise RewardError("check_reward takes options for a class, a function or a name, not for an instance")
        return adapt(reward), ["its hooks are named as they are called"]
    options = _require_picklable(dict(options or {}), f"options of reward {spec.name!r}")
    loaded = spec.build(options)
    if loaded.fits_reference:
        loaded.instance.fit_reference(batch)
    return loaded, ["its signature and the names of its hooks are right", "its options travel to worker processes"]


def _spec(reward: Any, folder: str | Path | None) -> RewardSpec | None:
    if isinstance(reward, str):
        return find_reward(reward, folder or Path.cwd())
    if not isinstance(reward, type) and inspect.isfunction(inspect.getattr_static(type(reward), "__call__", None)):
        return None
    return describe(reward, getattr(reward, "__name__", type(reward).__name__))  # a partial function has no name


class _Check:
    """One reward under test."""

    def __init__(self, loaded: LoadedReward, tolerance: float, result: CheckedReward) -> None:
        self.loaded, self.tolerance, self.result = loaded, tolerance, result
        self.about = f"reward {loaded.spec.name!r}"

    def images(self, batch: RewardBatch) -> None:
        """The promises of a pointwise reward."""
        score, about = self.loaded.score, self.about
        self.result.scores = scores = self._score_untouched(batch)
        self._passed("one finite score or None per image; images, prompts and metadata stay as they are")
        self._require_same(scores, score(batch), f"{about} is not deterministic")
        self._passed("the same scores on a second call")
        single = [score(batch[index : index + 1])[0] for index in range(len(batch))]
        self._require_same(scores, single, f"{about} depends on which images share a batch")
        backwards = score(batch[::-1])[::-1]
        self._require_same(scores, backwards, f"{about} depends on the order of the batch")
        self._passed("the same scores one image at a time and in reverse order")
        if score(batch[:0]) != []:
            raise RewardError(f"{about} must return an empty list for an empty batch")
        self._passed("an empty list for an empty batch")
        for group in _groups(batch):
            self._require_whole(score(group), group)
        self._passed("of the images of one prompt, all are scored or none")

    def groups(self, batch: RewardBatch) -> None:
        """The promises of a group reward: every call holds all images as siblings of one prompt."""
        groups = _groups(batch)
        found = [self._score_untouched(group) for group in groups]
        self._passed("one finite score or None per sibling; images, prompts and metadata stay as they are")
        for group, scores in zip(groups, found, strict=True):
            self._require_whole(scores, group)
        self._passed("of the images of one prompt, all are scored or none")
        for group, scores in zip(groups, found, strict=True):
            self._require_same(scores, self.loaded.score(group), f"{self.about} is not deterministic")
            complaint = f"{self.about} depends on the order of the siblings"
            self._require_same(scores, self.loaded.score(group[::-1])[::-1], complaint)
            order = [*range(1, len(group)), 0]
            turned = self.loaded.score(_take(group, order))
            self._require_same([scores[index] for index in order], turned, complaint)
        self._passed("the same scores on a second call, and after other groups")
        self._passed("scores follow the siblings when their order changes")
        self.result.scores = [value for scores in found for value in scores]

    def something(self, allow_none: bool) -> None:
        """Not all scores are None, or the check has shown nothing."""
        if not allow_none and all(value is None for value in self.result.scores):
            needs = f"; it needs {self.loaded.spec.needs}" if self.loaded.spec.hooks & {"applicable"} else ""
            raise RewardError(
                f"{self.about} scored None for all {len(self.result.scores)} images, so nothing was tested{needs} "
                "(give prompts and images that it applies to, or allow_none=True)"
            )
        self._passed(f"{sum(value is not None for value in self.result.scores)} of {len(self.result.scores)} scored")

    def applicable(self, batch: RewardBatch) -> None:
        """`applicable` and None agree."""
        if "applicable" not in self.loaded.spec.hooks:
            return
        batches = _groups(batch) if self.loaded.kind == "group" else [batch]
        asked = [row for part in batches for row in zip(part.prompts, part.metadata, strict=True)]
        for (prompt, metadata), value in zip(asked, self.result.scores, strict=True):
            if not self.loaded.spec.applies(prompt, metadata) and value is not None:
                raise RewardError(f"{self.about} says prompt {prompt!r} is not applicable, yet scores it {value}")
        self._passed("no score where `applicable` says no")

    def explained(self, batch: RewardBatch) -> None:
        """Explained scores are the scores of a call."""
        if "explained_scores" not in self.loaded.spec.hooks:
            return
        parts = _groups(batch) if self.loaded.kind == "group" else [batch]
        explained = [value for part in parts for value, _ in self.loaded.explained_scores(part)]
        self._require_same(self.result.scores, explained, f"{self.about} explains other scores than it gives")
        self._passed("explained scores are the scores of a call")

    def state(self, batch: RewardBatch) -> None:
        """The state survives being stored."""
        if not self.loaded.has_state:
            return
        reward = self.loaded.instance
        reward.load_state_dict(require_storable(reward.state_dict(), f"state of {self.about}"))
        parts = _groups(batch) if self.loaded.kind == "group" else [batch]
        restored = [value for part in parts for value in self.loaded.score(part)]
        self._require_same(
            self.result.scores, restored, f"{self.about} scores differently after its state was restored"
        )
        self._passed("its state can be stored and restored")

    def _passed(self, promise: str) -> None:
        self.result.promises.append(promise)

    def _score_untouched(self, batch: RewardBatch) -> list[float | None]:
        images_before = [image.copy() for image in batch.images]
        others_before = pickle.dumps((batch.prompts, batch.metadata))
        scores = self.loaded.score(batch)
        unchanged = all(np.array_equal(old, new) for old, new in zip(images_before, batch.images, strict=True))
        if not unchanged or pickle.dumps((batch.prompts, batch.metadata)) != others_before:
            raise RewardError(f"{self.about} changes the images, prompts or metadata it is given")
        return scores

    def _require_whole(self, scores: list[float | None], group: RewardBatch) -> None:
        """A reward that abstains on single siblings would decide by that which of them win."""
        reason = partly_none(scores, group.prompts[0])
        if reason:
            raise RewardError(f"{self.about} {reason}")

    def _require_same(self, first: list, second: list, complaint: str) -> None:
        for index, (a, b) in enumerate(zip(first, second, strict=True)):
            if (a is None) != (b is None) or (a is not None and abs(a - b) > self.tolerance):
                raise RewardError(f"{complaint}: image {index} scored {a} and then {b}")


def _groups(batch: RewardBatch) -> list[RewardBatch]:
    """All images as siblings of each of the first prompts."""
    rows = list(zip(batch.prompts, batch.metadata, strict=True))
    distinct = [row for index, row in enumerate(rows) if row not in rows[:index]]
    size = len(batch)
    return [
        RewardBatch(list(batch.images), [prompt] * size, [copy.deepcopy(metadata) for _ in range(size)])
        for prompt, metadata in distinct[:MAX_GROUPS]
    ]


def _take(batch: RewardBatch, order: Sequence[int]) -> RewardBatch:
    return RewardBatch(
        [batch.images[index] for index in order],
        [batch.prompts[index] for index in order],
        [batch.metadata[index] for index in order],
    )


def _copy(batch: RewardBatch) -> RewardBatch:
    return RewardBatch([image.copy() for image in batch.images], list(batch.prompts), copy.deepcopy(batch.metadata))


def _require_picklable(value: Any, what: str) -> Any:
    try:
        return pickle.loads(pickle.dumps(value))
    except Exception as error:  # pickle raises many types; the author needs to know what failed to travel
        raise RewardError(f"{what} cannot be pickled to a worker process: {error}") from error


def require_storable(value: Any, what: str) -> Any:
    """`value` as it comes back from a run folder, where nothing but tensors and plain values is read.

    Raises:
        RewardError: it holds something else.
    """
    import torch  # here, so that a reward's author can run everything else without it

    torch.save(value, buffer := io.BytesIO())
    buffer.seek(0)
    try:
        return torch.load(buffer, weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).split("\n")[0]
        raise RewardError(
            f"{what} cannot be stored: it must hold tensors, numbers, strings, lists and dicts only ({reason})"
        ) from error
