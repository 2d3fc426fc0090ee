"""A step's rollouts on one rank: which prompts are drawn, which are drawn again, and which come from earlier steps.

The options of `rollout` that make more of each image act here (`configs/saving.py`); without them a step has the
prompts of the schedule, and one group of each. What is drawn follows from seed, step and what earlier steps have shown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from blip3o_grpo.configs import RunConfig
from blip3o_grpo.rollout import Discarded, Prompt, RolloutBatch, RolloutGroup
from blip3o_grpo.training.curriculum import Curriculum
from blip3o_grpo.training.replay import Replay
from blip3o_grpo.training.schedule import prompt_schedule
from blip3o_grpo.training.selection import completion_rewards, differs, group_rewards, spread

if TYPE_CHECKING:
    from blip3o_grpo.rollout import RolloutPipeline


@dataclass(frozen=True)
class Draws:
    """What a rank learns from in a step: new groups, and groups of earlier steps."""

    prompts: list[Prompt]
    """Of the new groups, as they were asked for first."""
    batch: RolloutBatch
    replayed: list[RolloutGroup]


class Drawing:
    """Makes the rollouts of every step of a run.

    Args:
        prompts: training prompts.
        pipeline: anything with `collect` of `rollout.RolloutPipeline`.
        rank: of this process.
        num_ranks: of the run; they have equal parts of a step's groups.
    """

    def __init__(
        self, config: RunConfig, prompts: Sequence[Prompt], pipeline: RolloutPipeline, rank: int, num_ranks: int
    ):
        self._config, self._prompts, self._pipeline = config, prompts, pipeline
        self._rank, self._num_ranks = rank, num_ranks
        rollout, self._updates = config.rollout, config.trainer.num_iterations
        num_batches, size = config.trainer.max_steps // self._updates, rollout.prompts_per_step
        self.schedule = prompt_schedule(len(prompts), size, num_batches, config.seed)
        self._places = {prompt.id: place for place, prompt in enumerate(prompts)}
        self.curriculum: Curriculum | None = None
        if rollout.curriculum:
            tags = [prompt.metadata.get("tag") for prompt in prompts]
            self.curriculum = Curriculum(rollout.curriculum, tags, size, num_batches, config.seed)
        self.replay: Replay | None = None
        if rollout.replay:
            groups = rollout.replay.groups_per_step // num_ranks
            self.replay = Replay(rollout.replay, groups, config.rewards, self._updates, rank)

    def prompts_of(self, step: int) -> list[Prompt]:
        """This rank's prompts of the batch whose first step this is, without those whose place a replayed group has."""
        share = self._config.rollout.prompts_per_step // self._num_ranks
        first = self._rank * share
        replayed = len(self.replay.next(self._batch(step))) if self.replay else 0
        return [self._prompts[place] for place in self._places_of(step)[first : first + share - replayed]]

    def draw(self, step: int, prompts: Sequence[Prompt]) -> RolloutBatch:
        """Sample, decode and score one group per prompt, and other prompts' in place of those that do not differ.

        Raises:
            RolloutError: a stage failed, or an outcome is none.
        """
        batch, section = self._collect(step, prompts), self._config.rollout.dynamic_sampling
        if section is None:
            return batch
        spare = self._spare(step)
        for _ in range(section.max_rounds):
            dull = [place for place, group in enumerate(batch.groups) if not differs(group, section)]
            others = [next(spare, None) for _ in dull]
            wanted = [prompt for prompt in others if prompt is not None]
            if not wanted:
                break
            batch = _with_others(batch, dull, self._collect(step, wanted), lambda group: differs(group, section))
        return batch

    def taken(self, step: int, prompts: list[Prompt], batch: RolloutBatch) -> Draws:
        """The step learns from this batch: with what is replayed beside it."""
        number = self._batch(step)
        replayed = self.replay.next(number) if self.replay else []
        if self.replay:
            self.replay.see(number, batch.groups)
        return Draws(prompts, batch, replayed)

    def spreads(self, batch: RolloutBatch) -> list[tuple[int, float]]:
        """Of this rank's groups the place of the prompt and the spread of the rewards, for `curriculum.see`."""
        rewards, each = self._config.rewards, self._config.rollout.noises_per_completion
        found = [(self._places[group.prompt.id], spread(group_rewards(group, rewards))) for group in batch.groups]
        return found + [
            (self._places[group.prompt_id], spread(completion_rewards(group.rewards, each, rewards)))
            for group in batch.discarded
        ]

    def save(self, checkpoint: Path, main: bool) -> None:
        """Keep what later steps depend on in a checkpoint's folder.

        Args:
            main: whether this is the rank that writes what all ranks know.
        """
        if self.curriculum and main:
            self.curriculum.save(checkpoint)
        if self.replay:
            self.replay.save(checkpoint)

    def load(self, checkpoint: Path) -> None:
        """Take up what `save` kept."""
        for part in (self.curriculum, self.replay):
            if part:
                part.load(checkpoint)

    def _batch(self, step: int) -> int:
        return (step - 1) // self._updates

    def _places_of(self, step: int) -> list[int]:
        """Of all ranks, before anything is replayed."""
        batch, size = self._batch(step), self._config.rollout.prompts_per_step
        if self.curriculum is None:
            return self.schedule[batch * size : (batch + 1) * size]
        in_turn, others = self.curriculum.pick(batch)
        places = []
        for rank in range(self._num_ranks):  # what is in turn first on every rank: replayed groups take the last places
            own = in_turn[rank :: self._num_ranks]
            left = size // self._num_ranks - len(own)
            places += [*own, *others[:left]]
            others = others[left:]
        return places

    def _collect(self, step: int, prompts: Sequence[Prompt]) -> RolloutBatch:
        return self._pipeline.collect(prompts, step=step, turn=self._rank, train=True)

    def _spare(self, step: int) -> Iterator[Prompt]:
        """Prompts that the step does not have, in an order of its own; every rank has others."""
        own = set(self._places_of(step))
        order = np.random.default_rng([self._config.seed, self._batch(step), 1]).permutation(len(self._prompts))
        left = [place for place in order.tolist() if place not in own]
        return iter([self._prompts[place] for place in left[self._rank :: self._num_ranks]])


def _with_others(
    batch: RolloutBatch, dull: Sequence[int], others: RolloutBatch, wanted: Callable[[RolloutGroup], bool]
) -> RolloutBatch:
    """The batch with groups of `others` in the places of `dull`, as far as they are wanted."""
    groups, free = list(batch.groups), list(dull)
    discarded = list(batch.discarded)
    for group in others.groups:
        if wanted(group) and free:
            place = free.pop(0)
            discarded.append(_scores_of(groups[place], replaced=True))
            groups[place] = group
        else:
            discarded.append(_scores_of(group, replaced=False))
    seconds, faults = (
        dict(Counter(ours) + Counter(theirs))
        for ours, theirs in ((batch.seconds, others.seconds), (batch.faults, others.faults))
    )
    zeros = dict.fromkeys(batch.seconds | others.seconds, 0.0)
    return replace(
        batch,
        groups=tuple(groups),
        skipped_groups=batch.skipped_groups + others.skipped_groups,
        seconds=zeros | seconds,
        faults=dict.fromkeys(batch.faults, 0) | faults,
        discarded=tuple(discarded),
    )


def _scores_of(group: RolloutGroup, *, replaced: bool) -> Discarded:
    return Discarded(group.prompt.id, tuple(rollout.rewards for rollout in group.rollouts), replaced)
