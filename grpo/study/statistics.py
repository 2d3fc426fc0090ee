"""Paired comparison of two policies on the same prompts: bootstrap intervals, their p-values, and corrections.

The unit is the prompt: images of one prompt are not independent, so their scores are averaged first, and so are the
training seeds. An interval therefore speaks about other prompts of the same kind under these very runs, not about other
training seeds; two or three seeds are too few to estimate that, so callers ask the seeds to agree instead.

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
    """A mean over prompts with its 95 % interval and, as a difference, the p-value of "it is 0" (two-sided)."""

    mean: float
    low: float
    high: float
    p: float
    num_prompts: int


def paired_bootstrap(values: np.ndarray, *, num_resamples: int = NUM_RESAMPLES, seed: int = 0) -> list[Estimate]:
    """Estimate the mean of each column, resampling rows; the p-value is the smallest level whose interval leaves out 0.

    Args:
        values: `[num_prompts, K]`, one value (or paired difference) per prompt; all columns share the resamples.
        num_resamples: bounds how small a p-value can get: no resample across 0 counts as half a one.
        seed: of the resampling, so the same values give the same result.
    """
    num_prompts, num_columns = values.shape
    means = values.mean(axis=0)
    if num_prompts < MIN_PROMPTS:
        return [Estimate(float(mean), float("nan"), float("nan"), 1.0, num_prompts) for mean in means]
    generator = np.random.default_rng(seed)
    counts = generator.multinomial(num_prompts, np.full(num_prompts, 1 / num_prompts), size=num_resamples)
    resampled = counts @ values / num_prompts  # [num_resamples, K]
    tail = expanded_tail((1 - LEVEL) / 2, num_prompts)
    low, high = np.quantile(resampled, [tail, 1 - tail], axis=0)
    tolerance = 1e-12 * (1 + np.abs(values).max(axis=0))  # sums of the same numbers differ in the last bit
    below, above = (resampled <= tolerance).mean(axis=0), (resampled >= -tolerance).mean(axis=0)
    crossing = np.clip(np.minimum(below, above), 0.5 / num_resamples, 0.5)
    p = two_sided_p(crossing, num_prompts)
    return [
        Estimate(float(means[k]), float(low[k]), float(high[k]), float(p[k]), num_prompts) for k in range(num_columns)
    ]


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
