"""Which prompts a step has, where prompts whose images differ come more often (`rollout.curriculum`).

Everything follows from the seed, the step and what the steps before it have shown, which a checkpoint keeps: a resumed
run asks for the prompts that an uninterrupted one would.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from blip3o_grpo.configs.atomic import write_atomically
from blip3o_grpo.configs.saving import CurriculumSection
from blip3o_grpo.training.schedule import prompt_schedule

FILE = "curriculum.json"
LEAST = 0.01
"""A prompt whose groups never differed counts as this share of the mean one: it may differ under a later policy."""


class Curriculum:
    """Running spreads of the prompts' groups, and the prompts that they make of a step.

    Args:
        tags: of every prompt, None where it has none.
        prompts_per_step: over all trainer ranks.
        num_batches: of rollouts in the run.
        seed: of the run.
    """

    def __init__(
        self, section: CurriculumSection, tags: Sequence[str | None], prompts_per_step: int, num_batches: int, seed: int
    ):
        self._section, self._size, self._seed = section, prompts_per_step, seed
        self._in_turn = section.in_turn(prompts_per_step)
        self._schedule = prompt_schedule(len(tags), self._in_turn, num_batches, seed)
        self._spreads = np.full(len(tags), np.nan)
        names = {tag: number for number, tag in enumerate(dict.fromkeys(tags))}
        self._tags = np.array([names[tag] for tag in tags])

    def see(self, groups: Iterable[tuple[int, float]]) -> None:
        """Take in what a step's groups showed.

        Args:
            groups: place of the prompt, and the standard deviation of its group's rewards.
        """
        for place, spread in groups:
            old = self._spreads[place]
            memory = 0.0 if math.isnan(old) else self._section.memory
            self._spreads[place] = memory * (0.0 if math.isnan(old) else old) + (1 - memory) * spread

    def expected(self) -> np.ndarray:
        """Of every prompt the spread that its next group is thought to have, `[N]`, above 0."""
        known = ~np.isnan(self._spreads)
        if not known.any():
            return np.ones(len(self._spreads))
        overall = float(self._spreads[known].mean())
        found = np.where(known, self._spreads, overall)
        for tag in np.unique(self._tags[known]):
            of_tag = self._tags == tag
            found[of_tag & ~known] = self._spreads[of_tag & known].mean()
        return np.maximum(found, LEAST * overall) if overall else np.ones(len(found))

    def pick(self, batch: int) -> tuple[list[int], list[int]]:
        """Places of the prompts of a batch of rollouts, all different: those in turn, and the others.

        Args:
            batch: from 0.
        """
        places = self._schedule[batch * self._in_turn : (batch + 1) * self._in_turn]
        weights = self.expected()
        weights[places] = 0
        generator = np.random.default_rng([self._seed, batch])
        chosen = generator.choice(len(weights), self._size - len(places), replace=False, p=weights / weights.sum())
        return places, chosen.tolist()

    def save(self, checkpoint: Path) -> None:
        """Keep what is known in a checkpoint's folder."""
        known = {int(place): float(self._spreads[place]) for place in np.flatnonzero(~np.isnan(self._spreads))}
        write_atomically(checkpoint / FILE, json.dumps(known))

    def load(self, checkpoint: Path) -> None:
        """Take up what `save` kept, if anything."""
        file = checkpoint / FILE
        if file.is_file():
            for place, spread in json.loads(file.read_text(encoding="utf-8")).items():
                self._spreads[int(place)] = spread
