"""What rewards would teach, from scores of the same groups: pure functions on arrays.

Scores are `[num_groups, group_size]`, NaN where an image was not scored. GRPO sees a reward only through differences
inside a group, so everything here is computed per group and averaged over groups.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

MIN_FOR_CORRELATION = 3
"""Two images always correlate perfectly, or not at all."""
SAME = 1e-9


@dataclass(frozen=True)
class RewardSummary:
    """One reward over all groups; shares lie in [0, 1]."""

    name: str
    num_groups: int
    """Groups with at least two scores."""
    num_images: int
    mean: float
    within_std: float
    """Mean over groups of the standard deviation inside the group."""
    without_spread: float
    """Share of groups whose images all score the same: they teach nothing."""
    at_zero: float
    """Share of images with score 0 or below."""
    at_one: float
    """Share of images with score 1 or above."""


@dataclass(frozen=True)
class PairSummary:
    """How alike two rewards judge the images of a group; None where no group allows it."""

    first: str
    second: str
    num_groups: int
    """Groups in which both rewards have spread; what follows is the mean over them."""
    pearson: float | None
    spearman: float | None
    same_order: float | None
    """Share of image pairs that both rewards tell apart and put in the same order; by chance one half."""
    same_best: float | None
    """Overlap of the sets of best images: their intersection over their union."""


def summarise_reward(name: str, scores: np.ndarray) -> RewardSummary:
    """Spread and saturation of one reward; NaN where there is nothing to average."""
    known = [row[np.isfinite(row)] for row in scores]
    groups = [row for row in known if len(row) > 1]
    images = np.concatenate(known) if known else np.zeros(0)
    return RewardSummary(
        name,
        len(groups),
        len(images),
        _mean(images),
        _mean([row.std() for row in groups]),
        _mean([np.ptp(row) <= SAME for row in groups]),
        _mean(images <= 0),
        _mean(images >= 1),
    )


def compare_rewards(first: str, second: str, a: np.ndarray, b: np.ndarray) -> PairSummary:
    """Agreement of two rewards on the images that both have scored."""
    found = group_agreements(a, b)
    means = {name: _mean(values) if values else None for name, values in found.items()}
    return PairSummary(first, second, len(found["same_best"]), **means)


def group_agreements(a: np.ndarray, b: np.ndarray) -> dict[str, list[float]]:
    """The measures of `PairSummary` in every group that allows them, between scores `[num_groups, group_size]`."""
    found: dict[str, list[float]] = {"pearson": [], "spearman": [], "same_order": [], "same_best": []}
    for left, right in zip(a, b, strict=True):
        both = np.isfinite(left) & np.isfinite(right)
        x, y = left[both], right[both]
        if len(x) < 2 or np.ptp(x) <= SAME or np.ptp(y) <= SAME:
            continue
        if len(x) >= MIN_FOR_CORRELATION:
            found["pearson"].append(_correlation(x, y))
            found["spearman"].append(rank_correlation(x, y))
        i, j = np.triu_indices(len(x), 1)
        order = np.sign(x[i] - x[j]) * np.sign(y[i] - y[j])
        if order.any():
            found["same_order"].append(float((order > 0).sum() / (order != 0).sum()))
        best = x >= x.max() - SAME, y >= y.max() - SAME
        found["same_best"].append(float((best[0] & best[1]).sum() / (best[0] | best[1]).sum()))
    return found


def rank_correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Spearman's; equal values share their mean rank."""
    return _correlation(stats.rankdata(x), stats.rankdata(y))


def _correlation(x: np.ndarray, y: np.ndarray) -> float:
    x, y = x - x.mean(), y - y.mean()
    return float((x * y).sum() / np.sqrt((x**2).sum() * (y**2).sum()))


def _mean(values: object) -> float:
    array = np.asarray(values, dtype=np.float64)
    return float(array.mean()) if array.size else float("nan")
