"""Scores images: one reward in an actor of its own, so its libraries stay out of every other process."""

from __future__ import annotations

import traceback
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np

from blip3o_grpo.rewards import RewardBatch, RewardError, load_reward
from blip3o_grpo.rewards.redaction import redact
from blip3o_grpo.rollout.messages import DecodedChunk, ScoredChunk, ScoreFailure, Snapshot, writable
from blip3o_grpo.rollout.ray_seams import contain_exit_actor
from blip3o_grpo.rollout.types import Prompt
from blip3o_grpo.rollout.workers.base import CallEndedError, Worker, contained

Judged = list[tuple[float | None, Mapping[str, Any] | None]]
"""Score and explanation of every image of a group."""


class RewardWorker(Worker):
    """Actor: images in, scores out.

    Args:
        name: of the worker.
        reward_name: column name, used in messages.
        target: registered name or `module:name`.
        options: the constructor's, or the function's.
        batch_size: most images in one call of a pointwise reward; None, and for a group reward: one group a call.
        folder: where `module:name` is looked for first; None: only where Python imports from.

    It may run in an interpreter of the reward's own, so nothing it imports needs more than Ray, NumPy and lazy_loader.
    """

    def __init__(
        self,
        name: str,
        reward_name: str,
        target: str,
        options: Mapping[str, Any],
        batch_size: int | None = None,
        folder: str | None = None,
    ):
        super().__init__(name)
        self._reward_name = reward_name
        self._target = target
        self._options = options
        self._batch_size = batch_size
        self._folder = folder
        self._reward = None

    def start(self) -> None:
        """Build the reward.

        Raises:
            RewardError: with the reward's own error, whose class may not exist outside this worker's environment.
        """
        try:
            with contained():
                contain_exit_actor()  # before the plug-in is imported
                self._reward = load_reward(self._target, self._options, self._folder)
        except RewardError:
            raise
        except Exception as error:  # whatever a plug-in's constructor raises
            raise RewardError(f"reward {self._reward_name!r} cannot be built: {_said(error)}") from error

    def needs_reference(self) -> bool:
        """Whether the reward compares with the starting policy's images."""
        self.ready()
        return self._reward.fits_reference

    def load(self, values: Mapping[str, Any]) -> None:
        """Restore the reward's state."""
        self._reward.instance.load_state_dict(values)

    def fit_reference(self, prompts: Sequence[Prompt], images: Sequence[np.ndarray]) -> Mapping[str, Any] | None:
        """Fit the reward to the starting policy's images and return its state; None if the reward has none."""
        with self.busy("score"):
            if not self.needs_reference():
                return None
            with self.timed():
                texts, metadata = [prompt.text for prompt in prompts], [prompt.metadata for prompt in prompts]
                self._reward.instance.fit_reference(RewardBatch(list(images), texts, metadata))
            return self._reward.instance.state_dict()

    def score(self, decoded: DecodedChunk, snapshot: Snapshot | None, explain: bool = False) -> ScoredChunk:
        """Scores of every group. What a reward raises comes back as a failure of that group, never as a number.

        A reward that compares with the starting policy's images scores None until it has seen them.
        """
        with self.busy("score", decoded.requests):
            self.ready()
            if snapshot is not None:
                self.use(snapshot)
            fitted = snapshot is not None or not self.needs_reference()
            with self.timed():
                judged = self._judge_groups(decoded, explain) if fitted else _not_judged(decoded)
        scores = tuple(_column(group, 0) for group in judged)
        return ScoredChunk(scores, self.work(), tuple(_column(group, 1) for group in judged) if explain else ())

    def _judge_groups(self, decoded: DecodedChunk, explain: bool) -> list[Judged | ScoreFailure]:
        groups = [
            _batch(request.prompt, images) for request, images in zip(decoded.requests, decoded.images, strict=True)
        ]
        if self._batch_size is not None and len(groups) > 1 and self._reward.kind == "pointwise":
            try:
                judged = iter(self._judge(_join(groups), explain))
            except Exception:  # each group by itself shows which one it was
                return [self._judge_group(group, explain) for group in groups]
            return [list(islice(judged, len(group))) for group in groups]
        return [self._judge_group(group, explain) for group in groups]

    def _judge_group(self, group: RewardBatch, explain: bool) -> Judged | ScoreFailure:
        try:
            return self._judge(group, explain)
        except Exception as error:  # whatever a plug-in raises: the caller decides between stop and skip
            return ScoreFailure(_said(error), writable(redact(traceback.format_exc())))

    def _judge(self, batch: RewardBatch, explain: bool) -> Judged:
        size = len(batch) if self._reward.kind == "group" else self._batch_size or len(batch)
        calls = [batch[start : start + size] for start in range(0, len(batch), size)]
        with contained():
            if explain:
                return [pair for call in calls for pair in self._reward.explained_scores(call, self._reward_name)]
            return [(value, None) for call in calls for value in self._reward.score(call, self._reward_name)]


def _said(error: Exception) -> str:
    """An error of a plug-in in words that can be saved and sent."""
    text = str(error) if isinstance(error, CallEndedError) else f"{type(error).__name__}: {error}"
    return writable(redact(text))


def _column(group: Judged | ScoreFailure, part: int) -> list[Any] | ScoreFailure:
    return group if isinstance(group, ScoreFailure) else [pair[part] for pair in group]


def _not_judged(decoded: DecodedChunk) -> list[Judged]:
    return [[(None, None)] * len(images) for images in decoded.images]


def _batch(prompt: Prompt, images: np.ndarray) -> RewardBatch:
    return RewardBatch(list(images), [prompt.text] * len(images), [prompt.metadata] * len(images))


def _join(batches: list[RewardBatch]) -> RewardBatch:
    return RewardBatch(
        [image for batch in batches for image in batch.images],
        [prompt for batch in batches for prompt in batch.prompts],
        [metadata for batch in batches for metadata in batch.metadata],
    )
