"""Has the run begun to please its rewards at the cost of what they stand for? Pure functions over its evaluations.

A gold reward has weight 0, so nothing pushes it up but its likeness to what is trained on. Once a policy exploits the
difference, the trained reward goes on rising and gold turns round (Gao et al., arXiv 2210.10760). Each evaluation is
compared with the one at which gold was best so far, the start included, prompt by prompt. The best of many is partly
luck, and every evaluation is one more chance to be wrong. So the intervals are widened until a run in which gold does
not move is stopped with a probability of 5 % at most, however long it is: the k-th evaluation gets the share
1 / (k (k + 1)) of that, which add up to 1, and divides it by the k earlier ones to choose from and the gold rewards.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from blip3o_grpo.configs import RewardSection
from blip3o_grpo.evaluation.heldout import Evaluation
from blip3o_grpo.evaluation.statistics import Estimate, corrected_level, estimate


@dataclass(frozen=True)
class GoldFall:
    """Gold fell beyond its noise while the trained reward rose."""

    step: int
    reward: str
    """Name of the gold reward."""
    best: int
    """Step of the earlier evaluation at which it was highest; 0: the starting policy."""
    before: float
    """Its mean there."""
    change: Estimate
    """Of the gold reward since then, paired by prompt; its interval is at `level`."""
    trained: Estimate
    """Change of the weighted sum of the trained rewards since then, with its 95 % interval."""
    level: float
    """Of the interval of `change`, corrected for the number of comparisons."""

    def __str__(self) -> str:
        since = f"after step {self.best}" if self.best else "at the start"
        interval = f"{self.level * 100:.4g} % interval {self.change.interval_and_n('+.3f')}"
        return (
            f"gold reward {self.reward!r} fell from {self.before:.3f} {since} to {self.before + self.change.mean:.3f} "
            f"(change {self.change.mean:+.3f}, {interval}) while the trained reward rose by {self.trained.mean:.3f} "
            f"({self.trained.interval_and_n('+.3f')})"
        )


def find_fall(
    earlier: Sequence[Evaluation], now: Evaluation, rewards: Sequence[RewardSection], gold: Sequence[str]
) -> GoldFall | None:
    """The first gold reward that fell while the trained reward rose, or None.

    It fell where the whole interval of its change since its best evaluation is below 0. The trained reward rose where
    its mean change is above 0: without that a run is not hacked but damaged, which is another guard's business.

    Args:
        earlier: evaluations of the run on the same prompts, that of the starting policy among them.
        now: the newest one.
        rewards: of the run.
        gold: `guards.gold`.
    """
    for name in gold:
        known = [evaluation for evaluation in earlier if name in evaluation.means]
        changes = []
        if known and name in now.means:
            best = max(known, key=lambda evaluation: evaluation.means[name])
            changes = list(gold_changes(best, now, name).values())
        if not changes:
            continue
        chances = len(known) ** 2 * (len(known) + 1) * len(gold)
        level = corrected_level(chances / 2)  # a half: only one end of the interval can stop a run
        change = estimate(changes, paired=True, level=level)
        trained = list(trained_changes(best, now, rewards))
        if change.direction < 0 and trained and np.mean(trained) > 0:
            rise = estimate(trained, paired=True)
            return GoldFall(now.step, name, best.step, best.means[name], change, rise, level)
    return None


def find_falls(
    evaluations: Sequence[Evaluation], rewards: Sequence[RewardSection], gold: Sequence[str], every_steps: int
) -> list[GoldFall]:
    """What a run was told of each of its evaluations, from those it has left.

    Args:
        evaluations: of the run, in any order; that of a step may be there twice, as after a rollback.
        rewards: of the run.
        gold: `guards.gold`.
        every_steps: `evaluation.every_steps`; of other steps only the last one is judged.
    """
    by_step = dict(sorted({evaluation.step: evaluation for evaluation in evaluations}.items()))
    due = {step: found for step, found in by_step.items() if gold and step % every_steps == 0}
    last = {step: found for step, found in by_step.items() if gold and step == max(by_step)}
    falls = (
        find_fall([known for earlier, known in due.items() if earlier < step], now, rewards, gold)
        for step, now in (due | last).items()
    )
    return [fall for fall in falls if fall]


def gold_changes(before: Evaluation, now: Evaluation, name: str) -> dict[str, float]:
    """Change of a gold reward by the ids of the prompts that both evaluations have a score for."""
    return {
        id_: row[name] - old
        for id_, row in now.per_prompt.items()
        if row.get(name) is not None and (old := before.per_prompt.get(id_, {}).get(name)) is not None
    }


def trained_changes(before: Evaluation, now: Evaluation, rewards: Sequence[RewardSection]) -> Iterator[float]:
    """Change of the weighted sum of the trained rewards, of every prompt that both have a score for.

    A reward that does not apply to a prompt adds nothing to it.
    """
    weights = {reward.name: reward.weight for reward in rewards if reward.weight}
    for id_, row in now.per_prompt.items():
        old = before.per_prompt.get(id_, {})
        scored = [name for name in weights if row.get(name) is not None and old.get(name) is not None]
        if scored:
            yield sum(weights[name] * (row[name] - old[name]) for name in scored)


def gold_score(evaluation: Evaluation, gold: Sequence[str]) -> float | None:
    """Mean of the gold rewards, by which checkpoints compete; None: it has none of them."""
    known = [evaluation.means[name] for name in gold if name in evaluation.means]
    return sum(known) / len(gold) if known else None
