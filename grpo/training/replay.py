"""Groups of earlier steps that are learnt from again (`rollout.replay`).

A rank keeps its own groups, without their images. Looking at what would be replayed changes nothing: a step that is
stopped before it has learnt from it finds the same again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from blip3o_grpo.configs import RewardSection
from blip3o_grpo.configs.saving import ReplaySection
from blip3o_grpo.rollout import RolloutBatch, RolloutGroup
from blip3o_grpo.rollout.batch_file import load_batch, save_batch
from blip3o_grpo.training.selection import group_rewards, spread

NO_IMAGE = np.zeros((0, 0, 3), np.uint8)


class Replay:
    """At most `groups * max_age` of them, those in which the best completion stands out most.

    Args:
        groups: that this rank may replay in a step.
        rewards: of the run.
        updates: optimiser steps on a batch of rollouts.
        rank: of this process.
    """

    def __init__(self, section: ReplaySection, groups: int, rewards: Sequence[RewardSection], updates: int, rank: int):
        self._max_age, self._most, self._rewards, self._updates = section.max_age, groups, rewards, updates
        self._file = f"replay-{rank}.safetensors"
        self._kept: list[RolloutGroup] = []

    def next(self, batch: int) -> list[RolloutGroup]:
        """What a batch of rollouts replays: the groups in which the best completion stands out most.

        Args:
            batch: its number, from 0.
        """
        return [group for group in self._ranked() if batch - self._born(group) <= self._max_age][: self._most]

    def see(self, batch: int, new: Sequence[RolloutGroup]) -> None:
        """A batch was drawn: what it replayed goes, and its new groups come."""
        gone = {id(group) for group in self.next(batch)}
        kept = [group for group in self._kept if id(group) not in gone]
        kept += [_without_images(group) for group in new if spread(group_rewards(group, self._rewards))]
        self._kept = [group for group in kept if batch + 1 - self._born(group) <= self._max_age]
        self._kept = self._ranked()[: self._most * self._max_age]

    def save(self, checkpoint: Path) -> None:
        """Keep them in a checkpoint's folder."""
        save_batch(checkpoint / self._file, RolloutBatch(tuple(self._kept), {}), 0)

    def load(self, checkpoint: Path) -> None:
        """Take up what `save` kept, if anything."""
        file = checkpoint / self._file
        if file.is_file():
            self._kept = list(load_batch(file)[1].groups)

    def _born(self, group: RolloutGroup) -> int:
        """Number of the batch that it was drawn for."""
        return group.rollouts[0].completion.policy_version // self._updates

    def _ranked(self) -> list[RolloutGroup]:
        """By how far the best completion stands out, then the newest first, then by name."""
        totals = [group_rewards(group, self._rewards) for group in self._kept]
        keys = [
            (-round(float(total.max() - total.mean()), 12), -self._born(group), group.prompt.id)
            for total, group in zip(totals, self._kept, strict=True)
        ]
        return [self._kept[i] for i in sorted(range(len(keys)), key=keys.__getitem__)]


def _without_images(group: RolloutGroup) -> RolloutGroup:
    rollouts = tuple(replace(rollout, image=NO_IMAGE, latents=None, explanations={}) for rollout in group.rollouts)
    return replace(group, rollouts=rollouts)
