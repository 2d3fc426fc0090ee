"""Rewards of a plain loop: called in its own process, or in a pool of one process per core.

Imports no torch: the pool's processes need none.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping, Sequence
from multiprocessing import get_context
from typing import Any, Literal
from unittest.mock import patch

import numpy as np

from blip3o_grpo.configs import RewardSection
from blip3o_grpo.rewards import LoadedReward, RewardBatch, find_reward
from blip3o_grpo.rollout import Prompt

Way = Literal["image by image", "one process", "a process per core"]
"""`image by image`: one thread; `one process`: the rewards use all cores as far as they can, group by group."""
ONE_BY_ONE: Way = "image by image"
POOL: Way = "a process per core"
WAYS: tuple[Way, ...] = (ONE_BY_ONE, "one process", POOL)


def build(sections: Sequence[RewardSection], threads: int) -> list[LoadedReward]:
    """The rewards; one that takes `threads` gets so many, unless its section says how many."""
    loaded = []
    for section in sections:
        spec = find_reward(section.target, section.folder)
        takes = "threads" in inspect.signature(spec.target).parameters
        loaded.append(spec.build({"threads": threads, **section.options} if takes else section.options))
    return loaded


def score_groups(
    rewards: Sequence[LoadedReward], images: np.ndarray, prompts: Sequence[Prompt], group_size: int, at_once: int
) -> np.ndarray:
    """Scores `[B, R]`, NaN where a reward does not apply.

    Args:
        rewards: R of them.
        images: `[B, H, W, 3]` uint8, group after group.
        prompts: one for each image.
        group_size: members of a group.
        at_once: images in a call of a pointwise reward; a group reward gets one group.
    """
    batch = RewardBatch(list(images), [prompt.text for prompt in prompts], [prompt.metadata for prompt in prompts])
    columns = []
    for reward in rewards:
        size = group_size if reward.kind == "group" else at_once
        scores = [score for start in range(0, len(batch), size) for score in reward.score(batch[start : start + size])]
        columns.append([np.nan if score is None else score for score in scores])
    return np.array(columns, dtype=np.float64).T


class Scoring:
    """The rewards of a run, in every way they can be called.

    Args:
        sections: of the recipe.
        group_size: members of a group.
        cores: threads of a reward in this process, or processes of the pool.
    """

    def __init__(self, sections: Sequence[RewardSection], group_size: int, cores: int):
        self.sections, self.group_size, self.cores = sections, group_size, cores
        self._on_one_core, self._on_all_cores = build(sections, 1), build(sections, cores)
        self._pool: Any = None

    def fit(self, images: np.ndarray, prompts: Sequence[Prompt]) -> None:
        """Show the starting policy's images to the rewards that compare with them, and start the pool."""
        batch = RewardBatch(list(images), [prompt.text for prompt in prompts], [prompt.metadata for prompt in prompts])
        for reward in self._on_one_core:
            if reward.fits_reference:
                reward.instance.fit_reference(batch)
        states = [reward.instance.state_dict() if reward.has_state else None for reward in self._on_one_core]
        _load(self._on_all_cores, states)
        with patch.dict(os.environ, OMP_NUM_THREADS="1"):
            self._pool = get_context("spawn").Pool(self.cores, _start, (self.sections, states))
            self._pool.map(_ready, range(self.cores))

    def __call__(self, images: np.ndarray, prompts: Sequence[Prompt], way: Way) -> np.ndarray:
        """Scores `[B, R]` of images `[B, H, W, 3]`, group after group; NaN where a reward does not apply."""
        if way == POOL:
            groups = [slice(start, start + self.group_size) for start in range(0, len(images), self.group_size)]
            parts = [(images[group], prompts[group], self.group_size) for group in groups]
            return np.concatenate(self._pool.starmap(_score_part, parts, chunksize=1))
        if way == ONE_BY_ONE:
            return score_groups(self._on_one_core, images, prompts, self.group_size, at_once=1)
        return score_groups(self._on_all_cores, images, prompts, self.group_size, at_once=self.group_size)

    def close(self) -> None:
        """End the pool."""
        if self._pool is not None:
            self._pool.terminate()
            self._pool.join()


_rewards: list[LoadedReward] = []
"""Of a process of the pool."""


def _start(sections: Sequence[RewardSection], states: Sequence[Mapping[str, Any] | None]) -> None:
    _rewards.extend(build(sections, threads=1))
    _load(_rewards, states)


def _load(rewards: Sequence[LoadedReward], states: Sequence[Mapping[str, Any] | None]) -> None:
    for reward, state in zip(rewards, states, strict=True):
        if state is not None:
            reward.instance.load_state_dict(state)


def _ready(_: int) -> None:
    """Waits until a process of the pool has its rewards."""


def _score_part(images: np.ndarray, prompts: Sequence[Prompt], group_size: int) -> np.ndarray:
    return score_groups(_rewards, images, prompts, group_size, at_once=group_size)
