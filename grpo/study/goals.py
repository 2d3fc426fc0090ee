"""Which arms may be recommended: goals decide, an arm's own reward does not, and nothing may be lost for them.

A goal is a measure with a margin, the smallest difference that matters in it. An arm may be recommended if

- it is better than the baseline in at least one goal that it does not train on, after the correction over the whole
  family of comparisons, in every seed, and by at least the margin: whatever is paid for rises, so an arm's own reward
  says nothing about the policy by itself; and
- in every goal, its own included, a fall by more than the margin is excluded: the 95 % interval of the difference ends
  above `-margin` (non-inferiority; a test in every goal needs no correction, as all must hold).

Where the baseline is an arm, both must also hold against the untrained policy: to do no harm where the baseline did
some is no reason to train.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from blip3o_grpo.configs.study import START, GoalSection
from blip3o_grpo.study.matrix import Comparison, Matrix


@dataclass(frozen=True)
class Judgement:
    """What the goals say about one arm, against the baseline or the untrained policy."""

    arm: str
    against: str
    gains: list[Comparison]
    """Goals in which it is better and which it does not train on."""
    own_gains: list[Comparison]
    """Goals in which it is better and which it trains on."""
    falls: list[Comparison]
    """Goals in which a fall by more than the margin is not excluded."""
    missing: list[str]
    """Goals in which it was not compared."""
    start: Judgement | None = None
    """Against the untrained policy, where the baseline is an arm."""

    @property
    def eligible(self) -> bool:
        return not self.reason

    @property
    def reason(self) -> str:
        """Why it may not be recommended; empty if it may."""
        if self.missing:
            return f"it was not compared in {listed(self.missing)}"
        if self.falls:
            return f"a fall that matters is not excluded in {listed(describe(c) for c in self.falls)}"
        if not self.gains and self.own_gains:
            names = listed(c.name for c in self.own_gains)
            return f"it is better only in {names}, which it trains on: an arm's own reward does not count for it alone"
        if not self.gains:
            return "no difference that matters is shown in any goal that it does not train on"
        return f"against {self.start.against}, {self.start.reason}" if self.start and self.start.reason else ""


def judge(matrix: Matrix, goals: Sequence[GoalSection]) -> list[Judgement]:
    """One judgement for every trained arm that was compared with the baseline."""
    trained = {(cell.arm, cell.reward) for cell in matrix.cells if cell.weight}
    arms = [arm for arm in matrix.arms if arm != START and any(c.arm == arm for c in matrix.against_baseline)]
    found = [_judge(arm, matrix.against_baseline, goals, trained) for arm in arms]
    if matrix.baseline == START:
        return found
    return [replace(one, start=_judge(one.arm, matrix.against_start, goals, trained)) for one in found]


def _judge(
    arm: str, comparisons: Sequence[Comparison], goals: Sequence[GoalSection], trained: Container[tuple[str, str]]
) -> Judgement:
    compared = {c.name: c for c in comparisons if c.arm == arm}
    pairs = [(goal, compared[goal.name]) for goal in goals if goal.name in compared]
    better = [c for goal, c in pairs if c.verdict == "better" and c.difference >= goal.margin]
    return Judgement(
        arm,
        next((c.against for c in comparisons if c.arm == arm), START),
        [c for c in better if (arm, c.reward) not in trained],
        [c for c in better if (arm, c.reward) in trained],
        [c for goal, c in pairs if c.low is None or c.low <= -goal.margin],
        [goal.name for goal in goals if goal.name not in compared],
    )


def best_of(matrix: Matrix, goals: Sequence[GoalSection], eligible: Sequence[str]) -> list[str]:
    """The arms that no other one beats: two of them were not told apart, or each is better in another goal."""
    unbeaten = [
        arm for arm in eligible if not any(beats(matrix, goals, rival, arm) for rival in eligible if rival != arm)
    ]
    return unbeaten or list(eligible)  # none: they beat each other in a circle


def beats(matrix: Matrix, goals: Sequence[GoalSection], arm: str, rival: str) -> bool:
    """Whether `arm` is better than `rival` in a goal that it does not train on, and worse in none."""
    names = {goal.name for goal in goals}
    trained = {cell.reward for cell in matrix.cells if cell.arm == arm and cell.weight}
    found = [c for c in matrix.between(arm, rival) if c.name in names]
    won = any(c.verdict == "better" and c.reward not in trained for c in found)
    return won and not any(c.verdict == "worse" for c in found)


def told_apart(matrix: Matrix, goals: Sequence[GoalSection], arms: Sequence[str]) -> bool:
    """Whether a difference in a goal is shown between any two of these arms."""
    names = {goal.name for goal in goals}
    return any(c.verdict for a, b in combinations(arms, 2) for c in matrix.between(a, b) if c.name in names)


def describe(comparison: Comparison) -> str:
    """`signs/ocr +0.213 (0.150 to 0.276, n=52)`."""
    text = f"{comparison.name} {comparison.difference:+.3f}"
    if comparison.low is None or comparison.high is None:
        return f"{text} (no interval, n={comparison.num_prompts})"
    return f"{text} ({comparison.low:+.3f} to {comparison.high:+.3f}, n={comparison.num_prompts})"


def listed(items: Iterable[str]) -> str:
    """`a, b and c`."""
    *first, last = items
    return f"{', '.join(first)} and {last}" if first else last
