"""The report of a study: one HTML file that needs nothing beside it, and its numbers as JSON.

Reads files only, like the report of a run, whose style, charts and pictures it shares.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from blip3o_grpo.configs import dump_config
from blip3o_grpo.configs.study import START
from blip3o_grpo.evaluation.changes import paired_changes
from blip3o_grpo.evaluation.heldout import Evaluation
from blip3o_grpo.report.axes import NATS, SCORE, Axis, running, smoothing
from blip3o_grpo.report.charts import Chart
from blip3o_grpo.report.page import checkout_line, command_line, describe_starts, write_page
from blip3o_grpo.report.pictures import MAX_PROMPTS, Album, Picture, scores
from blip3o_grpo.report.reading import Problems, read_starts, read_steps
from blip3o_grpo.run.files import EVALUATION_PICTURES
from blip3o_grpo.run.folder import RunFolder
from blip3o_grpo.run.hacking import KL, find_warnings, heldout_warnings
from blip3o_grpo.run.image_signals import IMAGE_SIGNALS
from blip3o_grpo.run.locks import is_held
from blip3o_grpo.study.bands import TOGETHER, Panels, Runs, draw_bands
from blip3o_grpo.study.conclusions import Conclusions, label_candidates
from blip3o_grpo.study.design import ENVIRONMENT_FILE, StudyPlan, Trial
from blip3o_grpo.study.efficiency import Speed, course_lines, measure_speed, read_courses
from blip3o_grpo.study.forest import draw_forest, reach
from blip3o_grpo.study.matrix import Cell, Column, Comparison, Matrix

PICTURE_SIDE = 256
PICTURES_PER_ARM = 4
IMAGES_AXIS = Axis("images painted", zero=True)
BUDGET_AXIS = Axis("KL, nats per token", zero=True, span=0.01)


@dataclass(frozen=True)
class Row:
    """One measure in the matrix: per arm its cell and its comparison with the baseline."""

    column: Column
    goal: bool
    entries: list[tuple[Cell, Comparison | None]]


@dataclass(frozen=True)
class PromptRow:
    """One held-out prompt as every arm draws it."""

    prompt: str
    arms: list[tuple[str, list[Picture]]]


class StudyReport:
    """What a study's folder holds, ready for its page.

    Args:
        plan: of the study.
        matrix, conclusions: of its finished trials; None: there is none.
        failed: trial name to its last error line.
        left_out: names of finished trials whose files are damaged.
        problems: what was damaged so far; more may be found.
    """

    def __init__(
        self,
        plan: StudyPlan,
        matrix: Matrix | None,
        conclusions: Conclusions | None,
        failed: Mapping[str, str],
        left_out: Collection[str],
        problems: Problems,
    ):
        self.plan, self.matrix, self.conclusions = plan, matrix, conclusions
        self.failed, self.left_out, self.problems = dict(failed), left_out, problems
        self.finished = [trial for trial in plan.trials if trial.finished and trial.name not in left_out]
        self.steps = {trial.name: read_steps(trial.folder, problems) for trial in plan.trials}
        self.starts = read_starts(plan.folder / ENVIRONMENT_FILE, problems)
        self.courses = read_courses(self.finished, self.steps, problems) if matrix else {}
        self.speeds = measure_speed(plan, matrix, self.courses) if matrix else []

    def values(self) -> dict[str, Any]:
        """Everything the page shows, by the names that the template uses."""
        plan, matrix = self.plan, self.matrix
        evaluation = plan.trials[0].config.evaluation
        runs, partly = self._runs()
        return {
            "name": plan.folder.name,
            "study": plan.study,
            "facts": [
                ("arms", str(len(plan.study.arms))),
                ("seeds", ", ".join(str(seed) for seed in plan.study.seeds)),
                ("trials", f"{sum(trial.finished for trial in plan.trials)} of {len(plan.trials)} finished"),
                ("steps", str(plan.base.trainer.max_steps)),
                ("held-out", ", ".join(f"{len(prompts)} {name}" for name, prompts in plan.suites.items())),
                ("images per prompt", str(evaluation.images_per_prompt)),
                ("goals", ", ".join(f"{goal.name} ± {goal.margin:g}" for goal in plan.goals) or "none is left"),
            ],
            "problems": self.problems.sentences,
            "failed": self.failed,
            "unfinished": self._unfinished(),
            "warnings": {trial.name: found for trial in self.finished if (found := self._warnings(trial))},
            "matrix": matrix,
            "conclusions": self.conclusions,
            "arms": self._arms(),
            "rows": self._rows(),
            "forests": self._forests(),
            "speeds": self._speeds(),
            "courses": course_charts(plan, course_lines(plan, matrix, self.courses)) if self.speeds else [],
            "charts": reward_charts(plan, runs),
            "image_charts": image_charts(runs),
            "partly": partly,
            "panels": len(runs) > TOGETHER,
            "prompts": self._pictures() if matrix else [],
            "starts": describe_starts(self.starts),
            "commands": self._commands(),
            "config": dump_config(plan.study),
            "base": dump_config(plan.base),
        }

    def numbers(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Those of the page for programs; every mean and difference has its interval (null: none) and n."""
        matrix = self.matrix
        return {
            "study": str(self.plan.folder),
            "finished": [trial.name for trial in self.finished],
            "failed": self.failed,
            "unfinished": {name: {"steps": done, "of": planned} for name, done, planned, _ in values["unfinished"]},
            "damaged": list(self.problems.sentences),
            "baseline": matrix and matrix.baseline,
            "correction": self.plan.study.correction,
            "matrix": [asdict(cell) for cell in matrix.cells] if matrix else [],
            "against_baseline": [asdict(c) for c in matrix.against_baseline] if matrix else [],
            "against_start": [asdict(c) for c in matrix.against_start] if matrix else [],
            "between_arms": [asdict(c) for c in matrix.between_arms] if matrix else [],
            "conclusions": self.conclusions and asdict(self.conclusions),
            "sample_efficiency": [asdict(speed) for speed in self.speeds],
            "commands": values["commands"],
            "environment": self.starts,
        }

    def _unfinished(self) -> list[tuple[str, int, int, str]]:
        """Trials that are not finished: name, steps done, steps planned, and what is going on."""
        found = []
        for trial in self.plan.trials:
            if trial.finished or trial.name in self.failed:
                continue
            done = len(self.steps[trial.name])
            state = "training now" if is_held(trial.folder.lock) else "interrupted" if done else "not begun"
            found.append((trial.name, done, trial.config.trainer.max_steps, state))
        return found

    def _runs(self) -> tuple[Runs, bool]:
        """Metrics per arm, of its finished runs or else of those that have begun; and whether there are such arms."""
        runs, partly = {}, False
        for arm in self.plan.study.arms:
            finished = [self.steps[trial.name] for trial in self.finished if trial.arm == arm.name]
            begun = [self.steps[t.name] for t in self.plan.trials if t.arm == arm.name and self.steps[t.name]]
            if finished:
                runs[arm.name] = finished
            elif begun:
                runs[f"{arm.name} (unfinished)"] = begun
                partly = True
        return runs, partly

    def _warnings(self, trial: Trial) -> list[str]:
        """What the run's own limits warn of, during training and on held-out prompts after it."""
        limits, rewards = trial.config.warnings, trial.config.rewards
        before, after = (Evaluation.load(trial.folder.evaluations / f"{name}.json") for name in ("before", "after"))
        changes = paired_changes(before, after)
        found = [
            *find_warnings(limits, rewards, self.steps[trial.name]),
            *heldout_warnings(limits, rewards, before.means, changes, after.step),
        ]
        return [f"step {warning.step}: {warning.text}" for warning in found]

    def _arms(self) -> list[tuple[str, str]]:
        """Arms of the matrix, each with what is said of it as one that the goals leave, or nothing."""
        if not self.matrix or not self.conclusions:
            return []
        words = label_candidates(self.matrix, self.plan.goals, self.conclusions)
        return [(arm, words.get(arm, "")) for arm in self.matrix.arms]

    def _rows(self) -> list[Row]:
        """One row per measure, in the matrix's order."""
        matrix = self.matrix
        if not matrix:
            return []
        goals = {goal.name for goal in self.plan.goals}
        return [
            Row(
                column,
                column.name in goals,
                [(matrix.cell(arm, column), matrix.comparison(arm, column)) for arm in matrix.arms],
            )
            for column in matrix.columns
        ]

    def _speeds(self) -> dict[str, list[Speed]]:
        """How fast arms rise, by goal."""
        return {
            name: list(found) for name, found in groupby(self.speeds, lambda speed: f"{speed.suite}/{speed.reward}")
        }

    def _forests(self) -> list[Chart]:
        """Differences from the baseline, measure by measure; those between scores in [0, 1] share one axis."""
        if not self.matrix or not self.matrix.against_baseline:
            return []
        margins = {goal.name: goal.margin for goal in self.plan.goals}
        by_measure: dict[str, list[Comparison]] = {}
        for comparison in self.matrix.against_baseline:
            by_measure.setdefault(comparison.name, []).append(comparison)
        shares = [c for found in by_measure.values() if reach(found) <= 1.08 for c in found]
        charts = []
        for index, (name, found) in enumerate(by_measure.items()):
            limit = reach(shares) if reach(found) <= 1.08 else reach(found)
            svg = draw_forest(f"forest-{index}", found, limit, margins.get(name))
            goal = f"; a goal: differences within ± {margins[name]:g} (shaded) do not matter" if name in margins else ""
            charts.append(Chart(name, f"n={found[0].num_prompts} prompts{goal}.", svg))
        return charts

    def _pictures(self) -> list[PromptRow]:
        """The same held-out prompts under every arm, with the seed that most arms have finished."""
        assert self.matrix
        seeds = [trial.seed for trial in self.finished]
        seed = max(self.plan.study.seeds, key=seeds.count)
        trained = {trial.arm: (trial.folder, "after") for trial in self.finished if trial.seed == seed}
        first = next(folder for folder, _ in trained.values())
        sources = {START: (first, "before")} | {arm: trained[arm] for arm in self.matrix.arms if arm in trained}
        shown = {arm: self._index(folder, name) for arm, (folder, name) in sources.items()}
        names = list(dict.fromkeys(name for lines in shown.values() for name in lines))[:MAX_PROMPTS]
        album = Album(len(names) * len(sources) * PICTURES_PER_ARM, PICTURE_SIDE)
        rows = []
        for prompt_id in names:
            lines = {arm: shown[arm].get(prompt_id) for arm in sources}
            arms = [
                (arm, _pictures(album, folder.evaluations / f"{name}-images", lines[arm]))
                for arm, (folder, name) in sources.items()
            ]
            rows.append(PromptRow(next(line["prompt"] for line in lines.values() if line), arms))
        return rows

    def _index(self, folder: RunFolder, name: str) -> dict[str, dict[str, Any]]:
        index = folder.evaluations / f"{name}-images" / "index.jsonl"
        return {line["prompt_id"]: line for line in self.problems.read_lines(index, EVALUATION_PICTURES, "prompt")}

    def _commands(self) -> list[str]:
        folder = self.plan.folder.resolve()
        again = f"study_dir={folder.with_name(folder.name + '-again')}"
        lines = [checkout_line(self.starts), command_line("ablate", folder / "study.yaml", again)]
        return [line for line in lines if line]


def write_study_report(
    plan: StudyPlan,
    matrix: Matrix | None,
    conclusions: Conclusions | None,
    failed: Mapping[str, str],
    out: Path | None = None,
    *,
    left_out: Collection[str] = (),
    problems: Problems | None = None,
) -> Path:
    """Write the report, by default `STUDY/report.html`, with its numbers beside it, and return its path.

    Args:
        plan, matrix, conclusions, failed, left_out, problems: as of `StudyReport`.
        out: HTML file.

    Raises:
        ConfigError: `out` cannot be what it names.
    """
    report = StudyReport(plan, matrix, conclusions, failed, left_out, problems or Problems())
    values = report.values()
    target = plan.folder / "report.html" if out is None else out
    return write_page("study.html.jinja", Path(__file__).parent, values, report.numbers(values), target)


def reward_charts(plan: StudyPlan, runs: Runs) -> list[Panels]:
    """Training curves of every reward, KL, and reward against KL."""
    bold, charts = describe_bold(runs), []
    for index, reward in enumerate(plan.base.rewards):
        weights = [arm.name for arm in plan.study.arms if arm.weights.get(reward.name)]
        trained = f"Trained on by {', '.join(weights)}." if weights else "Only measured."
        drawings = draw_bands(f"reward-{index}", runs, f"reward/{reward.name}", SCORE)
        charts.append(Panels(f"Reward: {reward.name}", f"Mean over a step's images. {trained}{bold}", drawings))
    drawings = draw_bands("kl", runs, KL, NATS)
    charts.append(Panels("KL to the starting policy", f"Nats per token.{bold}", drawings))
    for index, reward in enumerate(plan.base.rewards):
        drawings = draw_bands(f"budget-{index}", runs, f"reward/{reward.name}", SCORE, BUDGET_AXIS, KL)
        charts.append(Panels(f"{reward.name} against KL", "What distance from the start has bought.", drawings))
    return [chart for chart in charts if chart.drawings]


def course_charts(plan: StudyPlan, runs: Runs) -> list[Panels]:
    """Held-out score of every goal against the images that arms have learnt from."""
    charts = [
        Panels(f"Held-out: {goal.name}", "", draw_bands(f"course-{index}", runs, goal.name, SCORE, IMAGES_AXIS))
        for index, goal in enumerate(plan.goals)
    ]
    return [chart for chart in charts if chart.drawings]


def image_charts(runs: Runs) -> list[Panels]:
    """Curves of the training images' statistics."""
    bold, charts = describe_bold(runs), []
    for index, (metric, meaning) in enumerate(IMAGE_SIGNALS.items()):
        title = f"Training images: {metric.removeprefix('image/')}"
        axis = Axis("share", bounds=(0.0, 1.0))
        drawings = draw_bands(f"image-{index}", runs, metric, axis)
        charts.append(Panels(title, f"{meaning[0].upper()}{meaning[1:]}.{bold}", drawings))
    return [chart for chart in charts if chart.drawings]


def describe_bold(runs: Runs) -> str:
    """What the two lines of each curve are."""
    return running(smoothing(max((len(steps) for lines in runs.values() for steps in lines), default=0)))


def _pictures(album: Album, folder: Path, line: Mapping[str, Any] | None) -> list[Picture]:
    if line is None:
        return []
    rewards: Mapping[str, Sequence[float | None]] = line["rewards"]
    return [
        album.add(
            folder / image,
            scores({name: values[member] for name, values in rewards.items() if values[member] is not None}),
        )
        for member, image in enumerate(line["images"][:PICTURES_PER_ARM])
    ]
