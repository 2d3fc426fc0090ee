"""How far an axis reaches: never zoomed until noise looks like an event. And how many points a curve needs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MARGIN = 0.04
"""Share of the range that is left free at either end."""
NOISE_SPAN = 8.0
"""An axis spans at least so many standard deviations from step to step: +-2 of them fill half of it."""
RELATIVE_SPAN = 0.2
"""And at least this share of the values' size."""
MAX_POINTS = 240
"""Points of a curve; a column of a page has hardly more pixels."""


@dataclass(frozen=True)
class Axis:
    """What an axis shows, with its unit, and what it spans at least."""

    label: str
    bounds: tuple[float, float] | None = None
    """Range that the values can take: shown whole where all of them are inside it."""
    zero: bool = False
    """Begins at 0."""
    span: float = 0.0
    """Smallest range that means something."""
    log: bool = False


STEP = Axis("optimiser step")
SCORE = Axis("score", bounds=(0.0, 1.0))
NATS = Axis("nats per token", zero=True, span=0.01)


def limits(axis: Axis, curves: Sequence[np.ndarray]) -> tuple[float, float]:
    """Lower and upper end of an axis that is not logarithmic.

    Args:
        axis: its rules.
        curves: the values, each in the order of steps; NaN where there is none.
    """
    known = [values[np.isfinite(values)] for values in curves]
    known = [values for values in known if len(values)]
    low, high = min(values.min() for values in known), max(values.max() for values in known)
    if axis.bounds and axis.bounds[0] <= low and high <= axis.bounds[1]:
        margin = MARGIN * (axis.bounds[1] - axis.bounds[0])
        return axis.bounds[0] - margin, axis.bounds[1] + margin
    if axis.zero and low >= 0:
        return 0.0, float(max(high * (1 + 2 * MARGIN), axis.span) or 1.0)
    noise = max(np.std(np.diff(values)) / math.sqrt(2) if len(values) > 2 else 0.0 for values in known)
    size = max(abs(low), abs(high))
    span = max((high - low) * (1 + 2 * MARGIN), axis.span, NOISE_SPAN * noise, RELATIVE_SPAN * size) or 1.0
    middle = (low + high) / 2
    return float(middle - span / 2), float(middle + span / 2)


def smoothing(num_steps: int) -> int:
    """Steps whose mean is drawn bold; 1: too few for one."""
    return max(3, num_steps // 12) if num_steps >= 8 else 1


def running(window: int) -> str:
    """What the two lines of a smoothed curve are; nothing where it is not smoothed."""
    return f" Bold: mean of {window} steps; thin: each step." if window > 1 else ""


def thin(x: np.ndarray, values: np.ndarray, most: int = MAX_POINTS) -> tuple[np.ndarray, np.ndarray]:
    """At most `most` points of a curve: of every stretch the lowest and the highest, so no peak is lost."""
    if len(x) <= most:
        return x, values
    kept = []
    for stretch in np.array_split(np.arange(len(x)), most // 2):
        known = stretch[np.isfinite(values[stretch])]
        if len(known):
            kept += sorted({known[values[known].argmin()], known[values[known].argmax()]})
    return x[kept], values[kept]
