"""Curves of a run as inline SVG: drawn by matplotlib, coloured by the page.

Matplotlib writes stand-in colours that become CSS (`currentColor`, `var(--...)`), so one drawing serves the light and
the dark page. Titles stay out of the drawing: the page writes them as text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO

import numpy as np
from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

STAND_INS = {"#010101": "currentColor", "#010102": "var(--rule)"} | {
    f"#0101{10 + index}": f"var(--series-{index})" for index in range(6)
}
TEXT, RULE, *SERIES = STAND_INS
STYLE = {
    "svg.fonttype": "none",  # text stays text, in the page's font
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10,
    "text.color": TEXT,
    "axes.edgecolor": RULE,
    "axes.labelcolor": TEXT,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": TEXT,
    "ytick.labelcolor": TEXT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": RULE,
    "grid.linewidth": 0.5,
    "legend.frameon": False,
    "text.parse_math": False,
}
SIZE = (4.6, 2.7)
"""Inches; the page scales the drawing to its column, and a phone's column is about this wide."""


@dataclass(frozen=True)
class Line:
    """One curve.

    `values` may hold None where a step has no number; `smooth` adds the mean of that many neighbouring steps.
    """

    label: str
    steps: Sequence[float]
    values: Sequence[float | None]
    smooth: int = 1


@dataclass(frozen=True)
class Points:
    """Measured values with their intervals, e.g. held-out rewards."""

    label: str
    steps: Sequence[float]
    values: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


def draw(
    name: str,
    lines: Sequence[Line],
    points: Points | None = None,
    *,
    log: bool = False,
    bound: float | None = None,
    xlabel: str = "step",
) -> Markup | None:
    """One chart as an `<svg>` element, or None if there is no number to draw.

    Args:
        name: distinguishes the ids inside this drawing from those of others on the page.
        log: logarithmic axis; values at or below 0 are left out.
        bound: value to mark with a dashed line.
        xlabel: what `steps` are, if not optimiser steps.
    """
    arrays = [(line, np.asarray(line.steps, dtype=float), _numbers(line.values, log)) for line in lines]
    arrays = [entry for entry in arrays if np.isfinite(entry[2]).any()]
    if not arrays and not (points and points.values):
        return None
    with rc_context({**STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=SIZE, layout="constrained")
        axes = figure.subplots()
        for color, (line, steps, values) in zip(SERIES, arrays, strict=False):
            smoothed = running_mean(values, line.smooth)
            if line.smooth > 1:
                axes.plot(steps, values, color=color, linewidth=0.8, alpha=0.35)
            axes.plot(steps, smoothed, color=color, linewidth=1.8, label=line.label, marker=_marker(values))
        if points and points.values:
            centre = np.asarray(points.values)
            spread = np.abs([centre - np.asarray(points.low), np.asarray(points.high) - centre])
            axes.errorbar(
                points.steps, centre, spread, color=SERIES[1], fmt="o", markersize=5, capsize=3, label=points.label
            )
        if bound is not None:
            axes.axhline(bound, color=TEXT, linewidth=1, linestyle="--", label="bound")
        if log:
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter("{x:g}")  # the default is mathtext, which is not text in an SVG
        axes.xaxis.set_major_locator(MaxNLocator(integer=xlabel == "step", nbins=6 if xlabel == "step" else 4))
        axes.grid(axis="y")
        axes.set_xlabel(xlabel)
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=3, fontsize=9, handlelength=1.4)
        return inline(figure, name)


def running_mean(values: np.ndarray, window: int) -> np.ndarray:
    """`[N]` mean of up to `window` values around each, fewer at the ends; NaN values are left out."""
    known = np.isfinite(values)
    kernel = np.ones(window)
    total = np.convolve(np.where(known, values, 0.0), kernel, mode="full")
    count = np.convolve(known.astype(float), kernel, mode="full")
    start = (window - 1) // 2
    chosen = slice(start, start + len(values))
    with np.errstate(invalid="ignore"):
        return np.where(count[chosen] > 0, total[chosen] / count[chosen], math.nan)


def _numbers(values: Sequence[float | None], log: bool) -> np.ndarray:
    numbers = np.array([math.nan if value is None else value for value in values], dtype=float)
    return np.where(numbers > 0, numbers, math.nan) if log else numbers


def _marker(values: np.ndarray) -> str:
    return "o" if np.isfinite(values).sum() == 1 else ""


def inline(figure: Figure, name: str) -> Markup:
    """The figure as an `<svg>` element whose ids start with `name` and whose colours are the page's."""
    buffer = StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None, "Format": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", svg)
    for stand_in, css in STAND_INS.items():
        svg = svg.replace(stand_in, css)
    return Markup(svg)  # matplotlib escapes the labels it is given
