"""Scores images: one reward in an actor of its own, so its libraries stay out of every other process."""

from __future__ import annotations

import traceback
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rewards import RewardBatch, build_reward, score
from rollout.messages import PaintedChunk, ScoredChunk, ScoreFailure, Snapshot
from rollout.types import Prompt
from rollout.worker import Worker


class RewardWorker(Worker):
    """Actor: images in, scores out.

    Args:
        name: of the worker.
        reward_name: column name, used in messages.
        target: registered name or `module:Class`.
        options: the constructor's.
    """

    def __init__(self, name: str, reward_name: str, target: str, options: Mapping[str, Any]):
        super().__init__(name)
        self._reward_name = reward_name
        self._target = target
        self._options = options
        self._reward = None

    def ready(self) -> None:
        """Build the reward; its own error (an import that fails, say) is what the caller sees."""
        if self._reward is None:
            self._reward = build_reward(self._target, self._options)

    def load(self, values: Mapping[str, Any]) -> None:
        """Restore the reward's state."""
        self.ready()
        self._reward.load_state_dict(values)

    def fit_reference(self, prompts: Sequence[Prompt], images: Sequence[np.ndarray]) -> Mapping[str, Any] | None:
        """Fit the reward to the starting policy's images and return its state; None if the reward has none."""
        self.ready()
        if not hasattr(self._reward, "fit_reference"):
            return None
        with self.timed():
            self._reward.fit_reference(
                RewardBatch(list(images), [prompt.text for prompt in prompts], [prompt.metadata for prompt in prompts])
            )
        return self._reward.state_dict()

    def score(self, painted: PaintedChunk, snapshot: Snapshot | None) -> ScoredChunk:
        """Scores of every group. What a reward raises comes back as a failure of that group, never as a number.

        A reward that compares with the starting policy's images scores None until it has seen them.
        """
        self.ready()
        if snapshot is not None:
            self.use(snapshot)
        unfitted = snapshot is None and hasattr(self._reward, "fit_reference")
        with self.timed():
            scores = tuple(
                [None] * len(images) if unfitted else self._score_group(request.prompt, images)
                for request, images in zip(painted.requests, painted.images, strict=True)
            )
        return ScoredChunk(scores, self.work())

    def _score_group(self, prompt: Prompt, images: np.ndarray) -> list[float | None] | ScoreFailure:
        batch = RewardBatch(list(images), [prompt.text] * len(images), [prompt.metadata] * len(images))
        try:
            return score(self._reward, batch, self._reward_name)
        except Exception as error:  # whatever a plug-in raises: the caller decides between stop and skip
            return ScoreFailure(f"{type(error).__name__}: {error}", traceback.format_exc())
