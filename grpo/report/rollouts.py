"""Recorded rollouts for a page: the best and the worst of the whole run, and those of a few of its steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blip3o_grpo.report.pictures import Album, Picture
from blip3o_grpo.rollout import RolloutError
from blip3o_grpo.rollout.records import read_step
from blip3o_grpo.run.folder import RunFolder

MAX_STEPS = 400
"""Recorded steps that are looked through; of longer runs so many, spread evenly."""
NUM_CHOSEN = 6
"""Best rollouts shown, and worst ones."""
GROUPS_PER_STEP = 4


@dataclass(frozen=True)
class Part:
    """What one reward adds to a rollout's total."""

    reward: str
    score: float | None
    weight: float


@dataclass(frozen=True)
class Recorded:
    """A rollout whose picture was kept."""

    step: int
    """Optimiser step."""
    prompt_id: str
    prompt: str
    total: float
    """Weighted sum of its scores."""
    group_mean: float
    """Of the totals of its group."""
    parts: tuple[Part, ...]
    file: Path

    @property
    def scored(self) -> bool:
        return any(part.score is not None and part.weight for part in self.parts)


@dataclass(frozen=True)
class Shown:
    """A rollout with its picture."""

    rollout: Recorded
    picture: Picture


@dataclass(frozen=True)
class GroupPictures:
    """Best and worst picture of a recorded group."""

    prompt: str
    best: Shown
    worst: Shown


@dataclass(frozen=True)
class StepPictures:
    """The first groups of a recorded step."""

    step: int
    groups: tuple[GroupPictures, ...]
    num_groups: int


class Records:
    """The recorded steps of a run, read once; a damaged one is reported and left out.

    Args:
        weights: of the run's rewards.
        report: called with one sentence per damaged step.
    """

    def __init__(self, run: RunFolder, weights: Mapping[str, float], report: Callable[[str], None]):
        self.weights = weights
        folders = {int(f.name[5:]): f for f in (run.path / "rollouts").glob("step-[0-9]*") if f.name[5:].isdecimal()}
        self.num_steps = len(folders)
        self.steps: dict[int, list[tuple[Recorded, ...]]] = {}
        """Step to the best and the worst rollout of each of its groups."""
        for step in spread(sorted(folders), MAX_STEPS):
            try:
                lines = read_step(folders[step] / "rollouts.jsonl")
            except RolloutError as error:
                report(f"{error}; this recorded step is left out")
                continue
            self.steps[step] = [
                tuple(self._rollout(folders[step], step, line, kind) for kind in ("best", "worst")) for line in lines
            ]

    def best(self) -> list[Recorded]:
        """Of the whole run, one per prompt; of equals the latest."""
        return self._choose(lambda rollout: (-rollout.total, -rollout.step), 0)

    def worst(self) -> list[Recorded]:
        return self._choose(lambda rollout: (rollout.total, -rollout.step), 1)

    def _choose(self, order: Callable[[Recorded], tuple[float, int]], side: int) -> list[Recorded]:
        found = sorted((pair[side] for pairs in self.steps.values() for pair in pairs if pair[side].scored), key=order)
        by_prompt: dict[str, Recorded] = {}
        for rollout in found:
            by_prompt.setdefault(rollout.prompt_id, rollout)
        return list(by_prompt.values())[:NUM_CHOSEN]

    def _rollout(self, folder: Path, step: int, line: Mapping[str, Any], kind: str) -> Recorded:
        rollouts, chosen = line["rollouts"], line[kind]
        rewards = rollouts[chosen["member"]]["rewards"]
        totals = [self._total(rollout["rewards"]) for rollout in rollouts]
        return Recorded(
            step,
            line["prompt_id"],
            line["prompt"],
            totals[chosen["member"]],
            sum(totals) / len(totals),
            tuple(Part(name, score, self.weights.get(name, 0.0)) for name, score in rewards.items()),
            folder / chosen["image"],
        )

    def _total(self, rewards: Mapping[str, float | None]) -> float:
        return sum(self.weights.get(name, 0.0) * (score or 0.0) for name, score in rewards.items())


def show(album: Album, rollouts: Sequence[Recorded]) -> list[Shown]:
    """Rollouts with their pictures."""
    return [Shown(rollout, album.add(rollout.file, f"total {rollout.total:.2f}")) for rollout in rollouts]


def step_pictures(album: Album, records: Records) -> list[StepPictures]:
    """Groups of the first, the middle and the last recorded step."""
    steps = list(records.steps)
    chosen = [steps[i] for i in sorted({0, len(steps) // 2, len(steps) - 1})] if steps else []
    return [StepPictures(step, tuple(_groups(album, records.steps[step])), len(records.steps[step])) for step in chosen]


def _groups(album: Album, pairs: Sequence[tuple[Recorded, ...]]) -> Iterator[GroupPictures]:
    for pair in pairs[:GROUPS_PER_STEP]:
        best, worst = show(album, pair)
        yield GroupPictures(pair[0].prompt, best, worst)


def spread(items: Sequence[int], most: int) -> list[int]:
    """At most so many of the items, evenly spread, the first and the last among them."""
    if len(items) <= most:
        return list(items)
    return [items[round(index * (len(items) - 1) / (most - 1))] for index in range(most)]
