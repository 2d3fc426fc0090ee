"""Corrections of p-values for how many comparisons were made."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats


def correct(p_values: Sequence[float], method: str) -> list[float]:
    """Adjusted p-values of a family of comparisons.

    Args:
        method: `holm` (Holm 1979, bounds the chance of any false finding) or `benjamini_hochberg` (1995, bounds the
            expected share of false findings).
    """
    p = np.asarray(p_values, dtype=np.float64)
    if method == "benjamini_hochberg":
        return stats.false_discovery_control(p, method="bh").tolist()
    order = np.argsort(p)
    scaled = p[order] * np.arange(len(p), 0, -1)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(scaled))
    return adjusted.tolist()
