"""Curves of a study: per arm the mean of its seeds, in a band from the lowest seed to the highest.

Few arms share one drawing. More would cover each other: each gets a panel of its own on the same axes, in colour, with
the others behind it in grey.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from blip3o_grpo.report.axes import MAX_POINTS, STEP, Axis, smoothing, thin
from blip3o_grpo.report.charts import (
    QUIET,
    SERIES,
    SIZE,
    STYLE,
    describe,
    finish_axes,
    inline,
    marker,
    place,
    running_mean,
)

TOGETHER = 3
"""So many arms share one drawing."""
PANEL = (2.3, 1.8)
"""Inches of one arm's panel."""
BACKGROUND_POINTS = 60
BAND = "lowest to highest seed"

Runs = Mapping[str, Sequence[Sequence[Mapping[str, Any]]]]
"""Arm to the `metrics.jsonl` lines of each of its runs."""


@dataclass(frozen=True)
class Panels:
    """One metric of all arms: one drawing under no name, or one for each arm under its own."""

    title: str
    note: str
    drawings: tuple[tuple[str, Markup], ...]


@dataclass(frozen=True)
class Curve:
    """One arm; every array `[steps]`."""

    x: np.ndarray
    raw: np.ndarray
    """Mean over its seeds."""
    mean: np.ndarray
    """The same, smoothed."""
    low: np.ndarray | None
    """Lowest seed, smoothed; None, like `high`: one seed only, or against another metric than the step."""
    high: np.ndarray | None


def draw_bands(
    name: str, runs: Runs, metric: str, y: Axis, x: Axis = STEP, against: str = "step"
) -> tuple[tuple[str, Markup], ...]:
    """One metric of all arms, for `Panels.drawings`; nothing without numbers.

    Args:
        name: distinguishes the ids of these drawings.
        runs: what to draw; the mean is taken over the runs that have a number at a step.
        metric: its name in `metrics.jsonl`.
        y, x: what the axes show; all panels have the same.
        against: metric of the horizontal axis; another than `step` is drawn as a path without a band,
            smoothed more, since both ends of it are noisy.
    """
    curves = {arm: curve for arm, lines in runs.items() if (curve := _curve(lines, metric, against))}
    if not curves:
        return ()
    if len(runs) <= TOGETHER:
        return (("", _together(name, curves, x, y)),)
    return tuple(
        (arm, _panel(f"{name}-{index}", curves, arm, SERIES[index % len(SERIES)], x, y))
        for index, arm in enumerate(runs)
        if arm in curves
    )


def _together(name: str, curves: Mapping[str, Curve], x: Axis, y: Axis) -> Markup:
    with rc_context({**STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=SIZE)
        axes = figure.add_axes((0, 0, 1, 1))
        for color, (arm, curve) in zip(SERIES, curves.items(), strict=False):
            _draw(axes, curve, color, arm)
        if any(curve.low is not None for curve in curves.values()):
            axes.fill_between([], [], [], color=QUIET, alpha=0.3, linewidth=0, label=BAND)  # for the legend
        _finish(axes, curves, x, y, ticks=5)
        place(figure, axes, legend=True)
        return inline(figure, name, "; ".join(describe(arm, curve.x, curve.mean) for arm, curve in curves.items()))


def _panel(name: str, curves: Mapping[str, Curve], arm: str, color: str, x: Axis, y: Axis) -> Markup:
    with rc_context({**STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=PANEL)
        axes = figure.add_axes((0, 0, 1, 1))
        for other, curve in curves.items():
            if other != arm:
                axes.plot(*thin(curve.x, curve.mean, BACKGROUND_POINTS), color=QUIET, linewidth=0.8, alpha=0.45)
        _draw(axes, curves[arm], color, arm)
        _finish(axes, curves, x, y, ticks=3)
        place(figure, axes, left=0.72)
        return inline(figure, name, describe(arm, curves[arm].x, curves[arm].mean))


def _draw(axes: Axes, curve: Curve, color: str, label: str) -> None:
    if curve.low is not None and curve.high is not None:
        keep = np.linspace(0, len(curve.x) - 1, min(len(curve.x), MAX_POINTS // 2)).astype(int)
        axes.fill_between(curve.x[keep], curve.low[keep], curve.high[keep], color=color, alpha=0.2, linewidth=0)
    if not np.array_equal(curve.raw, curve.mean, equal_nan=True):
        axes.plot(*thin(curve.x, curve.raw), color=color, linewidth=0.7, alpha=0.45)
    axes.plot(*thin(curve.x, curve.mean), color=color, linewidth=1.8, label=label, marker=marker(curve.mean))


def _finish(axes: Axes, curves: Mapping[str, Curve], x: Axis, y: Axis, ticks: int) -> None:
    shown = [values for c in curves.values() for values in (c.raw, c.mean, c.low, c.high) if values is not None]
    finish_axes(axes, x, y, [curve.x for curve in curves.values()], shown, ticks)


def _curve(runs: Sequence[Sequence[Mapping[str, Any]]], metric: str, against: str) -> Curve | None:
    x, values = _table(runs, metric, against)
    known = np.isfinite(values).any(axis=0)
    if not known.any():
        return None
    x, values = x[known], values[:, known]
    if against != "step":
        window = max(1, values.shape[1] // 4)
        mean = np.nanmean(np.stack([running_mean(row, window) for row in values]), axis=0)
        return Curve(running_mean(x, window), mean, mean, None, None)
    window = smoothing(values.shape[1])
    smooth = np.stack([running_mean(row, window) for row in values])
    band = len(values) > 1
    low, high = (np.nanmin(smooth, axis=0), np.nanmax(smooth, axis=0)) if band else (None, None)
    return Curve(x, np.nanmean(values, axis=0), np.nanmean(smooth, axis=0), low, high)


def _table(runs: Sequence[Sequence[Mapping[str, Any]]], metric: str, against: str) -> tuple[np.ndarray, np.ndarray]:
    """`x [steps]` (mean over runs) and values `[runs, steps]`, NaN where a run has none."""
    steps = sorted({line["step"] for lines in runs for line in lines})
    place_of = {step: index for index, step in enumerate(steps)}
    x, values = np.full((2, len(runs), len(steps)), np.nan)
    for row, lines in enumerate(runs):
        for line in lines:
            for table, key in ((x, against), (values, metric)):
                if line.get(key) is not None:
                    table[row, place_of[line["step"]]] = line[key]
    known = np.isfinite(x).any(axis=0)
    return np.nanmean(x[:, known], axis=0) if known.any() else np.zeros(0), values[:, known]
