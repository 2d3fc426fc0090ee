"""Curves as inline SVG: drawn by matplotlib, coloured by the page.

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
from markupsafe import Markup, escape
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from blip3o_grpo.report.axes import MAX_POINTS, SCORE, STEP, Axis, limits, thin

NAMED = {
    "#010101": "currentColor",
    "#010102": "var(--rule)",
    "#010103": "var(--good)",
    "#010104": "var(--bad)",
    "#010105": "var(--quiet)",
}
STAND_INS = NAMED | {f"#0101{10 + index}": f"var(--series-{index})" for index in range(6)}
TEXT, RULE, GOOD, BAD, QUIET, *SERIES = STAND_INS
STYLE = {
    "svg.fonttype": "none",  # text stays text, in the page's font
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 11,
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
SIZE = (4.6, 2.9)
"""Inches; the page scales the drawing to its column, and a phone's column is about this wide."""


Ends = tuple[Sequence[float | None], Sequence[float | None]]
"""Lower and upper ends of intervals."""


@dataclass(frozen=True)
class Line:
    """One curve.

    `values` may hold None where a step has no number; `smooth` adds the mean of that many neighbouring steps.
    """

    label: str
    steps: Sequence[float]
    values: Sequence[float | None]
    smooth: int = 1
    interval: Ends | None = None
    """Of each step, drawn as a band."""


@dataclass(frozen=True)
class Points:
    """Measured values with their intervals, e.g. held-out rewards."""

    label: str
    steps: Sequence[float]
    values: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


@dataclass(frozen=True)
class Chart:
    """A drawing with its title and one sentence about it."""

    title: str
    note: str
    svg: Markup | None


def draw(
    name: str,
    lines: Sequence[Line],
    points: Points | None = None,
    *,
    y: Axis = SCORE,
    x: Axis = STEP,
    bound: float | None = None,
    bound_label: str = "bound",
    resumed: Sequence[int] = (),
) -> Markup | None:
    """One chart as an `<svg>` element, or None if there is no number to draw.

    Args:
        name: distinguishes the ids inside this drawing from those of others on the page.
        y: what the values are; on a logarithmic axis, values at or below 0 are left out.
        x: what `steps` are.
        bound: value to mark with a dashed line.
        bound_label: what it is.
        resumed: steps after which the run was resumed, marked by dotted lines.
    """
    arrays = [(line, np.asarray(line.steps, dtype=float), numbers(line.values, y.log)) for line in lines]
    arrays = [entry for entry in arrays if np.isfinite(entry[2]).any()]
    if not arrays and not (points and points.values):
        return None
    with rc_context({**STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=SIZE)
        axes = figure.add_axes((0, 0, 1, 1))
        for color, (line, steps, values) in zip(SERIES, arrays, strict=False):
            if line.interval:
                keep = np.linspace(0, len(steps) - 1, min(len(steps), MAX_POINTS)).astype(int)
                low, high = (numbers(ends, y.log)[keep] for ends in line.interval)
                axes.fill_between(steps[keep], low, high, color=color, alpha=0.13, linewidth=0)
            if line.smooth > 1:
                axes.plot(*thin(steps, values), color=color, linewidth=0.8, alpha=0.4)
            smoothed = running_mean(values, line.smooth)
            axes.plot(*thin(steps, smoothed), color=color, linewidth=1.8, label=line.label, marker=marker(values))
        if points and points.values:
            centre = np.asarray(points.values)
            spread = np.abs([centre - np.asarray(points.low), np.asarray(points.high) - centre])
            axes.errorbar(
                points.steps, centre, spread, color=SERIES[1], fmt="o", markersize=5, capsize=3, label=points.label
            )
        if bound is not None:
            axes.axhline(bound, color=TEXT, linewidth=1, linestyle="--", label=bound_label)
        for index, step in enumerate(resumed):
            label = {"label": "resumed"} if not index else {}
            axes.axvline(step + 0.5, color=TEXT, linewidth=1, linestyle=":", **label)
        shown = [values for _, _, values in arrays] + ([] if bound is None else [np.array([bound])])
        shown += [numbers(ends, y.log) for line, _, _ in arrays for ends in line.interval or ()]
        shown += [np.asarray(ends, dtype=float) for ends in ((points.low, points.high) if points else ())]
        finish_axes(axes, x, y, [steps for _, steps, _ in arrays], shown)
        place(figure, axes, legend=True)
        return inline(figure, name, "; ".join(describe(line.label, *entry) for line, *entry in arrays))


def finish_axes(
    axes: Axes, x: Axis, y: Axis, steps: Sequence[np.ndarray], shown: Sequence[np.ndarray], ticks: int = 5
) -> None:
    """Titles, ticks and reach of both axes."""
    if y.log:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")  # the default is mathtext, which is not text in an SVG
    else:
        axes.set_ylim(*limits(y, shown))
        axes.yaxis.set_major_locator(MaxNLocator(nbins=ticks, steps=[1, 2, 2.5, 5, 10]))
    if x is not STEP and (known := [values for values in steps if np.isfinite(values).any()]):
        axes.set_xlim(*limits(x, known))
    whole = x is STEP
    axes.xaxis.set_major_locator(MaxNLocator(integer=whole, nbins=min(ticks + 1, 6) if whole else 4))
    axes.grid(axis="y")
    axes.set_xlabel(x.label)
    axes.set_ylabel(y.label)


def place(figure: Figure, axes: Axes, *, legend: bool = False, left: float = 0.82) -> None:
    """Give the axes the room that ticks, titles and legend leave; a layout engine would draw everything twice.

    Args:
        legend: above the axes.
        left: inches for tick labels and title.
    """
    width, height = figure.get_size_inches()
    handles, labels = axes.get_legend_handles_labels() if legend else ([], [])
    columns = 3 if max(map(len, labels), default=0) <= 12 else 2
    above, below, right = 0.14 + 0.19 * -(-len(labels) // columns), 0.52, 0.28
    inside = width - left - right, height - below - above
    axes.set_position((left / width, below / height, inside[0] / width, inside[1] / height))
    axes.yaxis.set_label_coords(-(left - 0.12) / inside[0], 0.5)
    if labels:
        box = {"bbox_to_anchor": (0, 1), "borderaxespad": 0.1, "columnspacing": 1.2}
        figure.legend(handles, labels, loc="upper left", ncols=columns, fontsize=10, handlelength=1.4, **box)


def describe(label: str, steps: np.ndarray, values: np.ndarray) -> str:
    """What a curve shows, for those who cannot see it: `training from 0.31 to 0.62, between 0.30 and 0.65`."""
    known = values[np.isfinite(values)]
    ends = f"{label} from {known[0]:.3g} to {known[-1]:.3g}"
    return f"{ends}, between {known.min():.3g} and {known.max():.3g}"


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


def numbers(values: Sequence[float | None], log: bool = False) -> np.ndarray:
    """`[N]` floats, NaN where there is no number, or on a logarithmic axis none that it could show."""
    found = np.array([math.nan if value is None else value for value in values], dtype=float)
    return np.where(found > 0, found, math.nan) if log else found


def marker(values: np.ndarray) -> str:
    """Dots where there are too few values for a line to be seen as one."""
    return "o" if np.isfinite(values).sum() <= 4 else ""


def inline(figure: Figure, name: str, label: str) -> Markup:
    """The figure as an `<svg>` element whose ids start with `name` and whose colours are the page's.

    Args:
        label: what it shows, in words.
    """
    buffer = StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None, "Format": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", svg)
    svg = svg.replace("<svg", f'<svg role="img" aria-label="{escape(label)}"', 1)
    for stand_in, css in STAND_INS.items():
        svg = svg.replace(stand_in, css)
    return Markup(svg)  # matplotlib escapes the labels it is given
