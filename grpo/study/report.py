"""The report of a study: one HTML file that needs nothing beside it.

Reads files only, like the report of a run, whose style, charts and pictures it shares.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

import blip3o_grpo.report
from blip3o_grpo.configs import dump_config
from blip3o_grpo.configs.atomic import write_atomically
from blip3o_grpo.configs.study import START, GoalSection
from blip3o_grpo.evaluation.heldout import Evaluation
from blip3o_grpo.report.build import Chart
from blip3o_grpo.report.pictures import Picture, embed, scores
from blip3o_grpo.run.files import EVALUATION_PICTURES, read_objects
from blip3o_grpo.run.folder import RunFolder
from blip3o_grpo.run.hacking import find_warnings, heldout_warnings
from blip3o_grpo.run.image_signals import IMAGE_SIGNALS
from blip3o_grpo.run.metrics import read_metrics
from blip3o_grpo.study.bands import Runs, draw_bands
from blip3o_grpo.study.conclusions import Conclusions
from blip3o_grpo.study.design import StudyPlan, Trial
from blip3o_grpo.study.goals import told_apart
from blip3o_grpo.study.matrix import Cell, Column, Comparison, Matrix

PICTURE_SIDE = 192
PICTURES_PER_ARM = 4


@dataclass(frozen=True)
class Row:
    """One arm in the matrix: per column its cell and its comparison with the baseline."""

    arm: str
    recommended: str
    """Empty, `recommended`, or why not: the goals leave several arms, and show no difference or no winner."""
    entries: list[tuple[Cell, Comparison | None]]


@dataclass(frozen=True)
class PromptRow:
    """One held-out prompt as every arm draws it."""

    prompt: str
    arms: list[tuple[str, list[Picture]]]


def write_study_report(
    plan: StudyPlan,
    matrix: Matrix | None,
    conclusions: Conclusions | None,
    failed: Mapping[str, str],
    out: Path | None = None,
) -> Path:
    """Write the report, by default `STUDY/report.html`, and return its path."""
    folders = [Path(__file__).parent, Path(blip3o_grpo.report.__file__).parent]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folders),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("study.html.jinja").render(gather(plan, matrix, conclusions, failed))
    target = plan.folder / "report.html" if out is None else out
    write_atomically(target, page)
    return target


def gather(
    plan: StudyPlan, matrix: Matrix | None, conclusions: Conclusions | None, failed: Mapping[str, str]
) -> dict[str, Any]:
    """Everything the page shows, by the names that the template uses."""
    finished = [trial for trial in plan.trials if trial.finished]
    runs = {
        arm.name: lines
        for arm in plan.study.arms
        if (lines := [read_metrics(trial.folder.metrics) for trial in finished if trial.arm == arm.name])
    }
    evaluation = plan.trials[0].config.evaluation
    return {
        "name": plan.folder.name,
        "study": plan.study,
        "facts": [
            ("arms", str(len(plan.study.arms))),
            ("seeds", ", ".join(str(seed) for seed in plan.study.seeds)),
            ("trials", f"{len(finished)} of {len(plan.trials)} finished"),
            ("steps", str(plan.base.trainer.max_steps)),
            ("held-out", ", ".join(f"{len(prompts)} {name}" for name, prompts in plan.suites.items())),
            ("images per prompt", str(evaluation.images_per_prompt)),
            ("goals", ", ".join(f"{goal.name} ± {goal.margin:g}" for goal in plan.goals) or "none is left"),
        ],
        "failed": dict(failed),
        "unfinished": [
            (trial.name, len(read_metrics(trial.folder.metrics)), trial.config.trainer.max_steps)
            for trial in plan.trials
            if not trial.finished and trial.name not in failed
        ],
        "goals": {goal.name for goal in plan.goals},
        "warnings": {trial.name: found for trial in finished if (found := training_warnings(trial))},
        "matrix": matrix,
        "conclusions": conclusions,
        "groups": group_columns(matrix.columns) if matrix else [],
        "rows": make_rows(matrix, conclusions, plan.goals) if matrix and conclusions else [],
        "charts": make_charts(plan, runs),
        "prompts": example_pictures(plan, matrix) if matrix else [],
        "config": dump_config(plan.study),
        "base": dump_config(plan.base),
    }


def training_warnings(trial: Trial) -> list[str]:
    """What the run's own limits warn of, during training and on held-out prompts after it."""
    limits, rewards = trial.config.warnings, trial.config.rewards
    before, after = (Evaluation.load(trial.folder.evaluations / f"{name}.json") for name in ("before", "after"))
    found = [
        *find_warnings(limits, rewards, read_metrics(trial.folder.metrics)),
        *heldout_warnings(limits, rewards, before.means, after.means, after.step),
    ]
    return [f"step {warning.step}: {warning.text}" for warning in found]


def group_columns(columns: list[Column]) -> list[tuple[str, int]]:
    """Suites with the number of their columns, for the head of the matrix."""
    suites = [column.suite for column in columns]
    return [(suite, suites.count(suite)) for suite in dict.fromkeys(suites)]


def make_rows(matrix: Matrix, conclusions: Conclusions, goals: Sequence[GoalSection]) -> list[Row]:
    """One row per arm, in the matrix's order."""
    word = "recommended"
    if len(conclusions.candidates) > 1:
        names = " and ".join(conclusions.candidates)
        shown = "no winner" if told_apart(matrix, goals, conclusions.candidates) else "no difference shown"
        word = f"{shown} between {names}"
    words = dict.fromkeys(conclusions.candidates, word)
    return [
        Row(
            arm,
            words.get(arm, ""),
            [(matrix.cell(arm, column), matrix.comparison(arm, column)) for column in matrix.columns],
        )
        for arm in matrix.arms
    ]


def make_charts(plan: StudyPlan, runs: Runs) -> list[Chart]:
    """Training curves of every reward, KL, reward against KL, and image statistics."""
    if not runs:
        return []
    charts = []
    for index, reward in enumerate(plan.base.rewards):
        weights = [arm.name for arm in plan.study.arms if arm.weights.get(reward.name)]
        note = f"Mean over a step's images. Trained on by {', '.join(weights)}." if weights else "Only measured."
        svg = draw_bands(f"reward-{index}", runs, f"reward/{reward.name}")
        charts.append(Chart(f"Reward: {reward.name}", note, svg))
    note = "Nats per token."
    charts.append(Chart("KL to the starting policy", note, draw_bands("kl", runs, "kl/reference")))
    for index, reward in enumerate(plan.base.rewards):
        svg = draw_bands(f"budget-{index}", runs, f"reward/{reward.name}", "kl/reference", "KL, nats per token")
        charts.append(Chart(f"{reward.name} against KL", "What each nat of distance from the start has bought.", svg))
    for index, (metric, meaning) in enumerate(IMAGE_SIGNALS.items()):
        title = f"Training images: {metric.removeprefix('image/')}"
        charts.append(Chart(title, f"{meaning[0].upper()}{meaning[1:]}.", draw_bands(f"image-{index}", runs, metric)))
    return [chart for chart in charts if chart.svg]


def example_pictures(plan: StudyPlan, matrix: Matrix) -> list[PromptRow]:
    """The same held-out prompts under every arm, with the seed that most arms have finished."""
    finished = [trial for trial in plan.trials if trial.finished]
    seeds = [trial.seed for trial in finished]
    seed = max(plan.study.seeds, key=seeds.count)
    sources = {trial.arm: (trial.folder, "after") for trial in finished if trial.seed == seed}
    first = next(folder for folder, _ in sources.values())
    sources = {START: (first, "before")} | {arm: sources[arm] for arm in matrix.arms if arm in sources}
    shown = {arm: _read(folder, name) for arm, (folder, name) in sources.items()}
    return [
        PromptRow(
            line["prompt"],
            [
                (arm, _pictures(folder.evaluations / f"{name}-images", shown[arm].get(prompt_id)))
                for arm, (folder, name) in sources.items()
            ],
        )
        for prompt_id, line in shown[START].items()
    ]


def _read(folder: RunFolder, name: str) -> dict[str, dict[str, Any]]:
    index = folder.evaluations / f"{name}-images" / "index.jsonl"
    return {line["prompt_id"]: line for line in (read_objects(index, EVALUATION_PICTURES) if index.is_file() else [])}


def _pictures(folder: Path, line: Mapping[str, Any] | None) -> list[Picture]:
    if line is None:
        return []
    return [
        embed(
            folder / image,
            scores({name: values[member] for name, values in line["rewards"].items() if values[member] is not None}),
            PICTURE_SIDE,
        )
        for member, image in enumerate(line["images"][:PICTURES_PER_ARM])
    ]
