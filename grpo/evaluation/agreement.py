"""What rewards would teach, from scores of the same groups: pure functions on arrays.

Scores are `[num_groups, group_size]`, NaN where an image was not scored. GRPO sees a reward only through differences
inside a group, so everything here is computed per group; groups of one prompt are averaged before its prompts are, and
the intervals are over prompts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from blip3o_grpo.evaluation.statistics import Estimate, estimate

MIN_FOR_CORRELATION = 3
"""Two images always correlate perfectly, or not at all."""
SAME = 1e-9


@dataclass(frozen=True)
class RewardSummary:
    """One reward over all groups: means over prompts, shares in [0, 1]; None where there is nothing to average."""

    name: str
    num_groups: int
    """Groups with at least two scores."""
    num_images: int
    mean: Estimate | None
    within_std: Estimate | None
    """Standard deviation inside a group."""
    without_spread: Estimate | None
    """Share of groups whose images all score the same: they teach nothing."""
    at_zero: Estimate | None
    """Share of images with score 0 or below."""
    at_one: Estimate | None
    """Share of images with score 1 or above."""


@dataclass(frozen=True)
class PairSummary:
    """How alike two rewards judge the images of a group, as means over prompts; None where no group allows it."""

    first: str
    second: str
    num_groups: int
    """Groups in which both rewards have spread; what follows is from them."""
    pearson: Estimate | None
    spearman: Estimate | None
    same_order: Estimate | None
    """Share of image pairs that both rewards tell apart and put in the same order; by chance one half."""
    same_best: Estimate | None
    """Overlap of the sets of best images: their intersection over their union."""


def summarise_reward(name: str, scores: np.ndarray, prompts: Sequence[str] | None = None) -> RewardSummary:
    """Spread and saturation of one reward.

    Args:
        name: of the reward.
        scores: `[num_groups, group_size]`.
        prompts: id of each group's prompt; None: each has its own.
    """
    known = {group: row[np.isfinite(row)] for group, row in enumerate(scores)}
    scored = {group: row for group, row in known.items() if len(row)}
    spread = {group: row for group, row in known.items() if len(row) > 1}
    return RewardSummary(
        name,
        len(spread),
        sum(map(len, known.values())),
        over_prompts({group: float(row.mean()) for group, row in scored.items()}, prompts),
        over_prompts({group: float(row.std()) for group, row in spread.items()}, prompts),
        over_prompts({group: float(np.ptp(row) <= SAME) for group, row in spread.items()}, prompts),
        over_prompts({group: float((row <= 0).mean()) for group, row in scored.items()}, prompts),
        over_prompts({group: float((row >= 1).mean()) for group, row in scored.items()}, prompts),
    )


def compare_rewards(
    first: str, second: str, a: np.ndarray, b: np.ndarray, prompts: Sequence[str] | None = None
) -> PairSummary:
    """Agreement of two rewards on the images that both have scored; arguments as of `summarise_reward`."""
    found = group_agreements(a, b)
    signed = ("pearson", "spearman")  # as differences, correlations lie in [-1, 1]
    means = {name: over_prompts(values, prompts, paired=name in signed) for name, values in found.items()}
    return PairSummary(first, second, len(found["same_best"]), **means)


def over_prompts(
    values: Mapping[int, float], prompts: Sequence[str] | None = None, *, paired: bool = False
) -> Estimate | None:
    """Mean over prompts of the mean over a prompt's groups, with its interval; None: no group has a value.

    Args:
        values: by group.
        prompts: id of each group's prompt; None: each has its own.
        paired: as of `estimate`.
    """
    by_prompt: dict[str | int, list[float]] = {}
    for group, value in values.items():
        by_prompt.setdefault(group if prompts is None else prompts[group], []).append(value)
    return estimate([float(np.mean(found)) for found in by_prompt.values()], paired=paired) if by_prompt else None


def group_agreements(a: np.ndarray, b: np.ndarray) -> dict[str, dict[int, float]]:
    """By group, the measures of `PairSummary` of those that allow them, between scores `[num_groups, group_size]`."""
    found: dict[str, dict[int, float]] = {"pearson": {}, "spearman": {}, "same_order": {}, "same_best": {}}
    for group, (left, right) in enumerate(zip(a, b, strict=True)):
        both = np.isfinite(left) & np.isfinite(right)
        x, y = left[both], right[both]
        if not len(x) or np.ptp(x) <= SAME or np.ptp(y) <= SAME:  # one image has no spread either
            continue
        if len(x) >= MIN_FOR_CORRELATION:
            found["pearson"][group] = _correlation(x, y)
            found["spearman"][group] = rank_correlation(x, y)
        order = np.sign(x[:, None] - x) * np.sign(y[:, None] - y)  # of each pair, twice; both tell some pair apart
        found["same_order"][group] = float((order > 0).sum() / (order != 0).sum())
        best, others = x >= x.max() - SAME, y >= y.max() - SAME
        found["same_best"][group] = float((best & others).sum() / (best | others).sum())
    return found


def rank_correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Spearman's; equal values share their mean rank."""
    return _correlation(stats.rankdata(x), stats.rankdata(y))


def _correlation(x: np.ndarray, y: np.ndarray) -> float:
    x, y = x - x.mean(), y - y.mean()
    return float(np.clip((x * y).sum() / np.sqrt((x**2).sum() * (y**2).sum()), -1.0, 1.0))  # rounding may go beyond
