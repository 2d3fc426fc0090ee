"""What each arm changed, measure by measure: differences from the baseline as dots with their intervals."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from blip3o_grpo.report.charts import BAD, GOOD, QUIET, RULE, STYLE, TEXT, inline
from blip3o_grpo.study.goals import describe
from blip3o_grpo.study.matrix import Comparison

WIDTH = 4.6
ROW = 0.3
"""Inches."""
LEAST_REACH = 0.1
"""An axis of differences between scores in [0, 1] reaches at least so far either way."""
COLORS = {"better": GOOD, "worse": BAD, "": QUIET}


def reach(found: Sequence[Comparison]) -> float:
    """How far an axis goes on either side of 0 to hold these intervals."""
    ends = [abs(end) for c in found for end in (c.difference, c.low, c.high) if end is not None]
    return 1.08 * max([*ends, LEAST_REACH])


def draw_forest(name: str, found: Sequence[Comparison], limit: float, margin: float | None) -> Markup:
    """One measure: a row per arm.

    Args:
        name: distinguishes the ids of this drawing.
        found: comparisons of arms with the baseline, in the order of the rows.
        limit: the axis goes from `-limit` to `limit`.
        margin: of the goal, if the measure is one: differences inside it do not matter.
    """
    labels = [_short(c.arm) for c in found]
    left = 0.12 + 0.085 * max(map(len, labels))
    height = ROW * len(found) + 0.62
    with rc_context({**STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=(WIDTH, height))
        axes = figure.add_axes((left / WIDTH, 0.52 / height, 1 - (left + 0.2) / WIDTH, ROW * len(found) / height))
        if margin is not None:
            axes.axvspan(-margin, margin, color=RULE, alpha=0.5, linewidth=0)
        axes.axvline(0, color=TEXT, linewidth=1)
        for row, c in enumerate(found):
            color = COLORS[c.verdict]
            if c.low is not None and c.high is not None:
                axes.plot([c.low, c.high], [row, row], color=color, linewidth=2)
            axes.plot(c.difference, row, color=color, marker="o", markersize=6)
        axes.set_xlim(-limit, limit)
        axes.set_ylim(len(found) - 0.5, -0.5)
        axes.set_yticks(range(len(found)), labels)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10]))
        axes.grid(axis="x")
        axes.set_axisbelow(True)
        axes.set_xlabel(f"difference from {_short(found[0].against)}")
        return inline(figure, name, "; ".join(f"{c.arm}: {describe(c)}" for c in found))


def _short(name: str) -> str:
    return name if len(name) <= 20 else f"{name[:19]}…"
