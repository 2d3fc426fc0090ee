"""What an image's reward says of the head that painted it, apart from the tokens it was painted from.

G completions of a prompt, each painted from K noises, have rewards `[G, K]`. Their variance has two parts: between the
completions' means, which is the tokens' doing, and within each completion, which is the head's (and the noise's):

    factorised   tokens: mean over the K noises, against the group's mean      head: deviation inside the completion
    shared       both halves: deviation of the image (or of its completion's mean) from the group's mean

Deviations are divided by the group's pooled standard deviation, floored as tokens' advantages are (`advantages.py`).
Pure functions on arrays.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from blip3o_grpo.training.advantages import EPSILON

Credit = Literal["factorised", "shared"]


def head_advantages(rewards: np.ndarray, credit: Credit, floor: float) -> np.ndarray:
    """Advantages `[G, K]` of one group's images; all 0 without any difference, and where nothing was scored.

    Args:
        rewards: `[G, K]`, NaN in all places or in none.
        credit: which part of the difference counts.
        floor: of the standard deviation, in the rewards' units.
    """
    if np.isnan(rewards).any() or np.ptp(rewards) == 0:
        return np.zeros(rewards.shape)
    axis = 1 if credit == "factorised" else None
    if credit == "factorised" and (np.ptp(rewards, axis=1) == 0).all():
        return np.zeros(rewards.shape)  # exactly: means are rounded
    deviations = rewards - rewards.mean(axis=axis, keepdims=True)
    free = rewards.size - (len(rewards) if credit == "factorised" else 1)
    std = np.sqrt((deviations**2).sum() / free)
    return deviations / (max(std, floor) + EPSILON)


def variance_parts(rewards: np.ndarray) -> tuple[float, float]:
    """Variance of one group's rewards `[G, K]` between completions and within them: what tokens and head decide.

    Unbiased (one-way analysis of variance): the means of K noises still hold 1/K of the variance within, which is taken
    off; never below 0. NaN where it cannot be told: fewer than two completions or noises, or no score.
    """
    if min(rewards.shape) < 2 or np.isnan(rewards).any():
        return float("nan"), float("nan")
    within = rewards.var(axis=1, ddof=1).mean()
    between = rewards.mean(axis=1).var(ddof=1) - within / rewards.shape[1]
    return max(float(between), 0.0), float(within)
