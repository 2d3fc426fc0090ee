"""Which curves the report of a run shows, and on which axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from blip3o_grpo.configs import WarningsSection
from blip3o_grpo.report.axes import NATS, SCORE, Axis, running, smoothing
from blip3o_grpo.report.charts import Chart, Line, Points, draw, running_mean
from blip3o_grpo.report.reading import RunContents
from blip3o_grpo.run.hacking import KL
from blip3o_grpo.run.image_signals import IMAGE_SIGNALS

STAGES = {"sample": "sampling", "decode": "decoding", "score": "scoring", "train": "training", "step": "whole step"}
SHARE = Axis("share", bounds=(0.0, 1.0))
SMALL_SHARE = Axis("share of the tokens", zero=True, span=0.1)
SECONDS = Axis("seconds", zero=True, span=1.0)
COUNT = Axis("number", zero=True, span=1.0)
BUDGET_IN_SIGHT = 4.0
"""A limit is drawn where the curve has come within this factor of it; further off it would flatten the curve."""
WEIGHTS = "mismatch/weight_"
MAX_OTHERS = 24
"""Curves of numbers that no chart is made for."""


class Curves:
    """The charts of one run.

    Args:
        run: what its folder holds.
    """

    def __init__(self, run: RunContents):
        self.run, self.metrics = run, run.metrics
        self.window = smoothing(len(run.metrics))
        self.bold = running(self.window)
        self.shown: set[str] = {"step", "images/total", "time/total"}
        """Metrics that have a chart, or are an axis of one."""

    def main(self) -> list[Chart]:
        """What everybody looks at: rewards, KL, images, entropy, agreement of sampler and trainer, seconds."""
        if not self.metrics and not self.run.evaluations:
            return []
        rewards = self.run.config["rewards"]
        found = [self._reward(index, reward) for index, reward in enumerate(rewards)]
        if len(rewards) > 1:
            note = f"What the advantages are made of.{self.bold}{self._band('mean')}"
            svg = self._draw("reward-sum", ["reward/mean"], ["training"], y=self._total_axis())
            found.append(Chart("Weighted sum of the rewards", note, svg))
        found += [*self._course(), self._kl(), self._price()]
        note = f"Statistics of the training images, each in [0, 1].{self.bold}"
        names = [name.removeprefix("image/") for name in IMAGE_SIGNALS]
        found += self._where_logged("What the images look like", note, "images", [*IMAGE_SIGNALS], names, SHARE)
        note = f"Of the image tokens' distribution, mean over tokens. Near 0, groups are all alike.{self.bold}"
        axis = Axis("nats per token", zero=True, span=0.1)
        found += self._where_logged("Entropy", note, "entropy", ["entropy"], ["entropy"], axis)
        return [*found, *self._agreement(), self._seconds()]

    def others(self) -> list[Chart]:
        """Everything else that was logged, in small."""
        made = []
        spreads = [f"reward/{name}_std" for name in self.run.weights] + ["reward/std"]
        note = f"Standard deviation over the images of a step.{self.bold}"
        labels = [name.removeprefix("reward/").removesuffix("_std").replace("std", "sum") for name in spreads]
        axis = Axis("score", zero=True, span=0.2)
        made += self._where_logged("Spread of the rewards", note, "spread", spreads, labels, axis)
        clips = ["clip_ratio/low_mean", "clip_ratio/high_mean", "clip_ratio/region_mean"]
        note = "Tokens whose ratio was clipped."
        made += self._where_logged("Clipping", note, "clip", clips, ["low", "high", "either"], SMALL_SHARE)
        axis = Axis("loss", span=0.01)
        made += self._where_logged(
            "Loss", "Near 0 by construction; its gradient teaches.", "loss", ["loss"], ["loss"], axis
        )
        faults = [name for name in self._names() if name.startswith(("faults/", "guards/")) or name == "groups/dropped"]
        labels = [name.rpartition("/")[2] for name in faults]
        made += self._where_logged("Faults that a step survived", "Per step.", "faults", faults, labels, COUNT)
        rest = [name for name in self._names() if name not in self.shown]
        for index, name in enumerate(rest[:MAX_OTHERS]):
            zero = name.startswith("time/") or name in ("grad_norm", "learning_rate", "groups/without_spread")
            made += self._where_logged(name, "", f"other-{index}", [name], [name], Axis("value", zero=zero))
        return made

    def _names(self) -> list[str]:
        """Metrics that were logged; intervals belong to their means."""
        return list(dict.fromkeys(name for line in self.metrics for name in line if not name.startswith("interval/")))

    def _values(self, name: str) -> list[float | None]:
        return [line.get(name) for line in self.metrics]

    def _line(self, name: str, label: str, window: int) -> Line:
        """Of the steps that have the metric: further steps on the same images have none of new ones."""
        lines = [line for line in self.metrics if name in line]
        ends = [[line.get(f"interval/{name}/{end}") for line in lines] for end in ("low", "high")]
        interval = (ends[0], ends[1]) if any(value is not None for value in ends[0]) else None
        return Line(label, [line["step"] for line in lines], [line[name] for line in lines], window, interval)

    def _draw(self, key: str, names: Sequence[str], labels: Sequence[str], smooth: bool = True, **options: Any):  # noqa: ANN202
        self.shown.update(names)
        window = self.window if smooth else 1
        lines = [self._line(name, label, window) for name, label in zip(names, labels, strict=True)]
        return draw(key, lines, resumed=self.run.resumed, **options)

    def _where_logged(
        self, title: str, note: str, key: str, names: Sequence[str], labels: Sequence[str], axis: Axis
    ) -> list[Chart]:
        """A chart, unless the run has none of these numbers: older versions did not log them all."""
        logged = [(name, label) for name, label in zip(names, labels, strict=True) if name in self._names()]
        svg = self._draw(key, [name for name, _ in logged], [label for _, label in logged], y=axis)
        return [Chart(title, note, svg)] if svg else []

    def _reward(self, index: int, reward: Mapping[str, Any]) -> Chart:
        name, measured = reward["name"], [e for e in self.run.evaluations.values() if reward["name"] in e.means]
        found = [evaluation.estimates()[name] for evaluation in measured]
        points = Points(
            "held-out, 95 % interval",
            [evaluation.step for evaluation in measured],
            [estimate.mean for estimate in found],
            [estimate.mean if estimate.low is None else estimate.low for estimate in found],  # a dot without a bar
            [estimate.mean if estimate.high is None else estimate.high for estimate in found],
        )
        prompts = {estimate.n for estimate in found if estimate.n}
        heldout = f" Held-out: n={'/'.join(map(str, sorted(prompts)))} prompts." if prompts else ""
        few = " Fewer than 4 prompts have no interval." if any(estimate.low is None for estimate in found) else ""
        svg = self._draw(f"reward-{index}", [f"reward/{name}"], ["training"], points=points, y=SCORE)
        note = f"Mean over a step's images; weight {reward['weight']:g}.{self.bold}{self._band(name)}{heldout}{few}"
        return Chart(f"Reward: {name}", note, svg)

    def _course(self) -> list[Chart]:
        """Held-out rewards against the images that they cost, where a run was evaluated on its way."""
        evaluations = list(self.run.evaluations.values())
        if len({evaluation.step for evaluation in evaluations}) < 3:
            return []
        spent = {evaluation.step: self.run.spent_until(evaluation.step) for evaluation in evaluations}
        lines = []
        for reward in self.run.config["rewards"]:
            points = {e.step: e.means[reward["name"]] for e in evaluations if reward["name"] in e.means}
            if points:
                lines.append(Line(reward["name"], [spent[step][0] for step in points], [*points.values()]))
        images, minutes = spent[max(spent)]
        note = f"Held-out means; {images:,.0f} images, and {minutes:.1f} minutes of steps, until the last."
        axis = Axis("images painted to learn from", zero=True, span=1.0)
        svg = draw("course", lines, x=axis, y=SCORE)
        return [Chart("Held-out rewards against images", note, svg)] if svg else []

    def _band(self, name: str) -> str:
        """What the band of a step's intervals is."""
        counts = {line.get(f"interval/reward/{name}/n") for line in self.metrics} - {None}
        if not self._line(f"reward/{name}", "", 1).interval:
            return ""
        few, many = min(counts, default=0), max(counts, default=0)
        return f" Band: 95 % interval over a step's n={few:g}{f' to {many:g}' if many != few else ''} prompts."

    def _total_axis(self) -> Axis:
        weights = self.run.weights.values()
        return Axis("weighted sum", bounds=(sum(w for w in weights if w < 0), sum(w for w in weights if w > 0)))

    def _kl(self) -> Chart:
        budget = WarningsSection.model_validate(self.run.config.get("warnings", {})).kl_budget
        largest = max((value for value in self._values(KL) if value is not None), default=0.0)
        near = budget is not None and largest * BUDGET_IN_SIGHT >= budget
        limit = "" if budget is None else f" warnings.kl_budget is {budget:g}{'' if near else ', beyond this axis'}."
        note = f"Held back with beta = {self.run.config['trainer']['beta']:g}.{limit}{self.bold}"
        svg = self._draw("kl", [KL], ["KL"], y=NATS, bound=budget if near else None, bound_label="budget")
        return Chart("KL to the starting policy", note, svg)

    def _price(self) -> Chart:
        lines = [line for line in self.metrics if "reward/mean" in line]
        columns = [np.array([line.get(name) for line in lines], dtype=float) for name in (KL, "reward/mean")]
        path = [running_mean(column, self.window) for column in columns] if lines else [(), ()]
        svg = draw(
            "budget", [Line("reward", *path)], x=Axis("KL, nats per token", zero=True, span=0.01), y=self._total_axis()
        )
        note = "Weighted sum of the rewards. A curve that goes on to the right without rising pays for nothing."
        return Chart("Reward against KL", note, svg)

    def _agreement(self) -> list[Chart]:
        bound = self.run.config["trainer"]["mismatch_bound"]
        names = {"mismatch/mean_abs": "mean", "mismatch/max_abs": "largest", "kl/mismatch": "KL"}
        svg = self._draw(
            "mismatch", [*names], [*names.values()], smooth=False, y=Axis("nats per token", log=True), bound=bound
        )
        note = (
            "|log-probability of the sampler − of the trainer| per token, and the KL between them. A mean above "
            f"{bound:g} stops the run."
        )
        found = [Chart("Mismatch of sampler and trainer", note, svg)]
        note = f"Share of the tokens or images that the correction for the mismatch leaves.{self.bold}"
        size = "mismatch/effective_sample_size"
        found += self._where_logged("Effective sample size", note, "ess", [size], ["share"], SHARE)
        note = "With which tokens or images count in the loss: trainer over sampler, cut; 1: they agree."
        weights = [WEIGHTS + name for name in ("min", "mean", "max")]
        axis = Axis("weight", span=0.2)
        return found + self._where_logged(
            "Weights of the correction", note, "weights", weights, ["min", "mean", "max"], axis
        )

    def _seconds(self) -> Chart:
        names = [f"time/{stage}" for stage in STAGES]
        svg = self._draw("seconds", names, [*STAGES.values()], smooth=False, y=SECONDS)
        note = "Stages overlap, and parallel workers' seconds add up: they are busy time. The whole step is wall time."
        return Chart("Seconds per stage", note, svg)
