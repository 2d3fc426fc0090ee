"""What an image's reward says of the head that painted it, apart from the tokens it was painted from.

G completions of a prompt, each painted from K noises, have rewards `[G, K]`. Their variance has two parts: between the
completions' means, which is the tokens' doing, and within each completion, which is the head's (and the noise's):

    factorised   tokens: mean over the K noises, against the group's mean      head: deviation inside the completion
    shared       both halves: deviation of the image (or of its completion's mean) from the group's mean

Deviations are divided by their standard deviation in the group or in the batch (`trainer.scale_rewards`), floored as
that of tokens' advantages is (`advantages.py`). Pure functions on arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from blip3o_grpo.training.advantages import EPSILON, Scale

Credit = Literal["factorised", "shared"]


def head_advantages(
    groups: Sequence[np.ndarray],
    credit: Credit,
    scale: Scale,
    floor: float,
    add: Callable[[Sequence[float]], Sequence[float]] = tuple,
) -> list[np.ndarray]:
    """Advantages `[G, K]` of the images of each group; all 0 without any difference, and where nothing was scored.

    Args:
        groups: rewards `[G, K]` of each, NaN in all places or in none.
        credit: which part of the difference counts.
        scale: whose standard deviation divides it, if any.
        floor: of that, in the rewards' units.
        add: sums values over all ranks.
    """
    found = [_deviations(rewards, credit) for rewards in groups]
    squares, free = [(deviations**2).sum() for deviations, _ in found], [freedom for _, freedom in found]
    if scale == "none":
        return [deviations for deviations, _ in found]
    if scale == "batch":
        all_squares, all_free = add([sum(squares), sum(free)])
        squares, free = [all_squares] * len(found), [all_free] * len(found)
    stds = [np.sqrt(square / max(freedom, 1)) for square, freedom in zip(squares, free, strict=True)]
    return [deviations / (max(std, floor) + EPSILON) for (deviations, _), std in zip(found, stds, strict=True)]


def _deviations(rewards: np.ndarray, credit: Credit) -> tuple[np.ndarray, int]:
    """Of a group's images, and how many of them are free."""
    if np.isnan(rewards).any():
        return np.zeros(rewards.shape), 0
    axis = 1 if credit == "factorised" else None
    free = rewards.size - (len(rewards) if credit == "factorised" else 1)
    if (np.ptp(rewards, axis=axis) == 0).all():
        return np.zeros(rewards.shape), free  # exactly: means are rounded
    return rewards - rewards.mean(axis=axis, keepdims=True), free


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
