"""What of the rollouts is learnt from: pure functions on the scores of groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from blip3o_grpo.configs import RewardSection
from blip3o_grpo.configs.saving import DynamicSamplingSection
from blip3o_grpo.rollout import RolloutError, RolloutGroup

Scores = Mapping[str, float | None]
"""Of one image."""


def completion_rewards(images: Sequence[Scores], each: int, rewards: Sequence[RewardSection]) -> np.ndarray:
    """Weighted sum of the trained rewards of every completion, `[G]`: means over its images; NaN where there is none.

    Args:
        images: scores of a group's images, those of a completion side by side.
        each: images of a completion.
    """
    totals = []
    for start in range(0, len(images), each):
        of_one, total = images[start : start + each], np.nan
        for reward in rewards:
            known = [score for scores in of_one if (score := scores[reward.name]) is not None]
            if reward.weight and known:
                total = (0.0 if np.isnan(total) else total) + reward.weight * float(np.mean(known))
        totals.append(total)
    return np.array(totals)


def group_rewards(group: RolloutGroup, rewards: Sequence[RewardSection]) -> np.ndarray:
    """`completion_rewards` of a group."""
    return completion_rewards([rollout.rewards for rollout in group.rollouts], group.noises_per_completion, rewards)


def spread(totals: np.ndarray) -> float:
    """Standard deviation (unbiased); exactly 0 where all are the same or nothing was scored."""
    if len(totals) < 2 or np.isnan(totals).any() or np.ptp(totals) == 0:
        return 0.0
    return float(totals.std(ddof=1))


def spread_subset(totals: np.ndarray, size: int) -> list[int]:
    """The members whose rewards have the largest variance of all choices of `size`, in their order.

    These are the lowest i and the highest size - i for some i (PODS, arXiv 2504.13818). Of choices that are alike the
    one with the most even halves is taken, and of members that are alike the first.

    Args:
        totals: `[G]`; NaN: no score, and the first `size` members are taken.
        size: at least 2.
    """
    if np.isnan(totals).any():
        return list(range(size))
    order = np.argsort(totals, kind="stable")
    choices = [np.concatenate([order[:low], order[len(order) - (size - low) :]]) for low in range(size + 1)]
    evenness = [-abs(2 * low - size) for low in range(size + 1)]
    variances = [round(float(totals[choice].var()), 12) for choice in choices]
    best = max(range(size + 1), key=lambda low: (variances[low], evenness[low]))
    return sorted(choices[best].tolist())


def differs(group: RolloutGroup, section: DynamicSamplingSection) -> bool:
    """Whether some of a group's images are right and some are wrong; where the outcome does not apply, it counts as so.

    Raises:
        RolloutError: a score is neither 0 nor 1, and the recipe does not say from which on it is right.
    """
    scores = [score for r in group.rollouts if (score := r.rewards[section.outcome]) is not None]
    if section.right is None:
        odd = next((score for score in scores if score not in (0, 1)), None)
        if odd is not None:
            raise RolloutError(
                f"rollout.dynamic_sampling.outcome: reward {section.outcome!r} gave {odd:.4g} for "
                f"{group.prompt.text!r}, neither right (1) nor wrong (0); give rollout.dynamic_sampling.right, from "
                "which on it is right"
            )
    right = [score >= (1 if section.right is None else section.right) for score in scores]
    return not scores or any(right) != all(right)
