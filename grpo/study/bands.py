"""Curves of a study: one line per arm, the mean of its seeds, in a band from the lowest seed to the highest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from blip3o_grpo.report.charts import SERIES, SIZE, STYLE, inline, running_mean

DASHES = ("-", "--", ":")
"""Arms beyond the colours repeat them with other dashes."""

Runs = Mapping[str, Sequence[Sequence[Mapping[str, Any]]]]
"""Arm to the `metrics.jsonl` lines of each of its runs."""


def draw_bands(name: str, runs: Runs, metric: str, against: str = "step", xlabel: str = "step") -> Markup | None:
    """One metric of all arms, or None if no run has it.

    Args:
        name: distinguishes the ids of this drawing.
        runs: what to draw; the mean is taken over the runs that have a number at a step.
        metric: its name in `metrics.jsonl`.
        against: metric of the horizontal axis; another than `step` is drawn as a path without a band,
            smoothed more, since both ends of it are noisy.
    """
    curves = {arm: _table(lines, metric, against) for arm, lines in runs.items()}
    if not any(np.isfinite(values).any() for _, values in curves.values()):
        return None
    with rc_context({**STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=SIZE, layout="constrained")
        axes = figure.subplots()
        for index, (arm, (x, values)) in enumerate(curves.items()):
            color, dash = SERIES[index % len(SERIES)], DASHES[index // len(SERIES) % len(DASHES)]
            if not np.isfinite(values).any():
                continue
            window = max(1, values.shape[1] // (12 if against == "step" else 4))
            x = x if against == "step" else running_mean(x, window)
            smooth = np.stack([running_mean(row, window) for row in values])
            known = np.isfinite(smooth).any(axis=0)
            mean = np.nanmean(smooth[:, known], axis=0)
            marker = "o" if known.sum() == 1 else ""
            axes.plot(x[known], mean, color=color, linestyle=dash, linewidth=1.8, label=arm, marker=marker)
            if against == "step" and len(values) > 1:
                low, high = np.nanmin(smooth[:, known], axis=0), np.nanmax(smooth[:, known], axis=0)
                axes.fill_between(x[known], low, high, color=color, alpha=0.18, linewidth=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=against == "step", nbins=6 if against == "step" else 4))
        axes.grid(axis="y")
        axes.set_xlabel(xlabel)
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=3, fontsize=9, handlelength=1.4)
        return inline(figure, name)


def _table(runs: Sequence[Sequence[Mapping[str, Any]]], metric: str, against: str) -> tuple[np.ndarray, np.ndarray]:
    """`x [steps]` (mean over runs) and values `[runs, steps]`, NaN where a run has none."""
    steps = sorted({line["step"] for lines in runs for line in lines})
    place = {step: index for index, step in enumerate(steps)}
    x, values = np.full((2, len(runs), len(steps)), np.nan)
    for row, lines in enumerate(runs):
        for line in lines:
            for table, key in ((x, against), (values, metric)):
                if line.get(key) is not None:
                    table[row, place[line["step"]]] = line[key]
    known = np.isfinite(x).any(axis=0)
    return np.nanmean(x[:, known], axis=0) if known.any() else np.zeros(0), values[:, known]
