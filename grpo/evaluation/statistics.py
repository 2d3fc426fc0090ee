"""Means over prompts and their bootstrap intervals, the same for one policy and for the difference of two.

Strata are lists of values, one value per prompt: one list for a plain mean, one list per tag for their overall. For a
paired comparison pass differences, `second - first` of each prompt: prompts differ in difficulty far more than two
policies do on one prompt, so the interval of the differences is much narrower than those of the two means.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

NUM_RESAMPLES = 2000


def stratified_mean(*strata: Sequence[float]) -> float:
    """Unweighted mean of the strata's means."""
    return float(np.mean([np.mean(values) for values in strata]))


def bootstrap_interval(*strata: Sequence[float], seed: int = 0) -> tuple[float, float]:
    """95 % percentile bootstrap interval of `stratified_mean`; deterministic.

    Args:
        strata: values, one per prompt, or paired differences; prompts are resampled within each stratum, so one that
            holds a single prompt adds no width.
        seed: of the resampling.
    """
    generator = np.random.default_rng(seed)
    means = np.zeros(NUM_RESAMPLES)
    for values in strata:
        data = np.asarray(values, dtype=np.float64)
        means += data[generator.integers(len(data), size=(NUM_RESAMPLES, len(data)))].mean(axis=1) / len(strata)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def resampled_interval(
    statistic: Callable[[np.ndarray], float], num_prompts: int, seed: int = 0
) -> tuple[float, float]:
    """95 % percentile bootstrap interval of anything that is no mean; deterministic.

    Args:
        statistic: of the prompts with these indices `[num_prompts]`, some more than once.
        num_prompts: to resample.
        seed: of the resampling.
    """
    generator = np.random.default_rng(seed)
    draws = generator.integers(num_prompts, size=(NUM_RESAMPLES, num_prompts))
    low, high = np.nanpercentile([statistic(rows) for rows in draws], [2.5, 97.5])
    return float(low), float(high)
