"""Paired comparison of two arms on the same prompts and seeds: bootstrap intervals, their p-values, and corrections.

Two things are drawn at random in a study. Prompts: images of one prompt are not independent, so their scores are
averaged first, and prompts are resampled. Training seeds: another seed gives another policy. Two or three seeds are too
few to be resampled (of two, half the resamples would hold one seed twice and the spread come out too small), so every
resample adds a Student draw whose variance is how much seeds differ beyond what prompts and images explain. With one
seed that is unknown and left out: the interval then speaks about these very runs.

The percentile bootstrap is too narrow for few prompts. Its levels are expanded as in Hesterberg, "What Teachers Should
Know About the Bootstrap" (2015): for a mean of n normal values the interval is then Student's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

LEVEL = 0.95
NUM_RESAMPLES = 20_000
MIN_PROMPTS = 5
"""Fewer prompts have no interval: a bootstrap of them says nothing."""


@dataclass(frozen=True)
class Estimate:
    """A mean over prompts and seeds with its 95 % interval and the two-sided p-value of "it is 0"."""

    mean: float
    low: float
    high: float
    p: float
    num_prompts: int


@dataclass(frozen=True)
class SeedSpread:
    """How much means over many prompts and images would differ from training seed to training seed."""

    variances: list[float]
    """Of one run of each table; 0 where nothing has two seeds."""
    degrees: float
    """Degrees of freedom of these estimates."""


def seed_spread(values: Sequence[np.ndarray], num_independent: int) -> SeedSpread:
    """Spread of seeds, from an analysis of variance of each table and of all together.

    Two or three seeds of one arm say little, so a table gets the larger one of its own and the pooled variance: arms
    whose own seeds happen to agree are not believed more than the others, arms that vary more are not believed as much.

    Args:
        values: each `[num_prompts, num_seeds]`, of an arm or of a difference of arms; numbers of seeds may differ.
        num_independent: how many of them do not follow from the others (of the differences of all pairs of A arms A-1).
    """
    degrees = np.array([table.shape[1] - 1 for table in values])
    if not degrees.sum() or len(values[0]) < MIN_PROMPTS:
        return SeedSpread([0.0] * len(values), 1.0)
    own = np.array([_excess(table) if table.shape[1] > 1 else 0.0 for table in values])
    pooled = (degrees * own).sum() / degrees.sum()
    return SeedSpread(
        np.maximum(0.0, np.maximum(own, pooled)).tolist(), float(degrees.sum() * num_independent / len(values))
    )


def _excess(table: np.ndarray) -> float:
    """Variance of the seeds' means beyond what prompts and images explain; below 0 by chance where there is none."""
    num_prompts, num_seeds = table.shape
    residual = table - table.mean(axis=1, keepdims=True) - table.mean(axis=0) + table.mean()
    of_chance = (residual**2).sum() / ((num_prompts - 1) * (num_seeds - 1) * num_prompts)
    return float(table.mean(axis=0).var(ddof=1) - of_chance)


def paired_bootstrap(
    values: Sequence[np.ndarray], spread: SeedSpread, *, num_resamples: int = NUM_RESAMPLES, seed: int = 0
) -> list[Estimate]:
    """Estimate the mean of each table; the p-value is the smallest level whose interval leaves out 0.

    Args:
        values: each `[num_prompts, num_seeds]`, one value (or paired difference) per prompt and seed; all share the
            resampled prompts.
        spread: of seeds.
        num_resamples: bounds how small a p-value can get: no resample across 0 counts as half a one.
        seed: of the resampling, so the same values give the same result.
    """
    by_prompt = np.stack([table.mean(axis=1) for table in values], axis=1)  # [num_prompts, K]
    num_prompts = len(by_prompt)
    means = by_prompt.mean(axis=0)
    if num_prompts < MIN_PROMPTS:
        return [Estimate(float(mean), float("nan"), float("nan"), 1.0, num_prompts) for mean in means]
    generator = np.random.default_rng(seed)
    counts = generator.multinomial(num_prompts, np.full(num_prompts, 1 / num_prompts), size=num_resamples)
    resampled = counts @ by_prompt / num_prompts  # [num_resamples, K]
    scale = np.sqrt(np.array(spread.variances) / [table.shape[1] for table in values])
    if scale.any():
        resampled += scale * generator.standard_t(spread.degrees, size=(num_resamples, 1))
    tail = expanded_tail((1 - LEVEL) / 2, num_prompts)
    low, high = np.quantile(resampled, [tail, 1 - tail], axis=0)
    tolerance = 1e-12 * (1 + np.abs(by_prompt).max(axis=0))  # sums of the same numbers differ in the last bit
    below, above = (resampled <= tolerance).mean(axis=0), (resampled >= -tolerance).mean(axis=0)
    crossing = np.clip(np.minimum(below, above), 0.5 / num_resamples, 0.5)
    p = two_sided_p(crossing, num_prompts)
    return [Estimate(float(means[k]), float(low[k]), float(high[k]), float(p[k]), num_prompts) for k in range(len(p))]


def expanded_tail(tail: float, num_prompts: int) -> float:
    """Share of resamples to leave out at either end for a nominal `tail` (Hesterberg 2015, section 5.3)."""
    spread = np.sqrt(num_prompts / (num_prompts - 1))
    return float(stats.norm.cdf(spread * stats.t.ppf(tail, num_prompts - 1)))


def two_sided_p(crossing: np.ndarray, num_prompts: int) -> np.ndarray:
    """Twice the nominal tail whose expansion is `crossing`, the inverse of `expanded_tail`."""
    spread = np.sqrt(num_prompts / (num_prompts - 1))
    return np.minimum(1.0, 2 * stats.t.cdf(stats.norm.ppf(crossing) / spread, num_prompts - 1))


def correct(p_values: Sequence[float], method: str) -> list[float]:
    """Adjusted p-values of a family of comparisons.

    Args:
        method: `holm` (Holm 1979, bounds the chance of any false finding) or `benjamini_hochberg` (1995, bounds the
            expected share of false findings).
    """
    p = np.asarray(p_values, dtype=np.float64)
    if not len(p):
        return []
    if method == "benjamini_hochberg":
        return stats.false_discovery_control(p, method="bh").tolist()
    order = np.argsort(p, kind="stable")
    scaled = p[order] * np.arange(len(p), 0, -1)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(scaled))
    return adjusted.tolist()
