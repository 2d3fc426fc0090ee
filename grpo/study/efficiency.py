"""Sample efficiency: how many images, and minutes, every arm of a study takes to get where it goes.

A course is a run's held-out score against the images that it has painted: its evaluations before, during
(`evaluation.every_steps`) and after training, with straight lines between them. Of the courses of an arm are told

    height      mean height of the course, the area below it over its images, up to the images that all arms have
    to target   images and minutes at which the mean over prompts and seeds first reaches the goal's `target`
                (`passages.py`)

Heights are compared with the baseline's prompt by prompt and seed by seed, as final scores are (`matrix.py`); the
untrained policy's course is flat.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any

import numpy as np

from blip3o_grpo.configs.study import START
from blip3o_grpo.evaluation.heldout import Evaluation
from blip3o_grpo.evaluation.statistics import Estimate, paired_bootstrap, seed_spread
from blip3o_grpo.report.reading import Problems
from blip3o_grpo.run.metrics import spent_until
from blip3o_grpo.study.design import StudyPlan, Trial
from blip3o_grpo.study.matrix import Column, Matrix
from blip3o_grpo.study.passages import Line, Passage, find_passages


@dataclass(frozen=True)
class Course:
    """One run: E evaluations, the first one before training."""

    batches: np.ndarray  # [E] of rollouts until then
    images: np.ndarray  # [E] painted until then
    minutes: np.ndarray  # [E] of its steps until then
    evaluations: tuple[Evaluation, ...]

    def measured(self, column: Column) -> Course:
        """The same without evaluations that lack a score of the column."""
        return self.only(
            [
                all(e.per_prompt.get(id_, {}).get(column.reward) is not None for id_ in column.prompt_ids)
                for e in self.evaluations
            ]
        )

    def only(self, kept: Sequence[bool]) -> Course:
        """The same with these evaluations, `[E]`."""
        evaluations = tuple(compress(self.evaluations, kept))
        return Course(
            *(values[np.array(kept, bool)] for values in (self.batches, self.images, self.minutes)), evaluations
        )

    def scores(self, column: Column) -> np.ndarray:
        """`[num_prompts, E]`."""
        return np.array([[e.per_prompt[id_][column.reward] for e in self.evaluations] for id_ in column.prompt_ids])


@dataclass(frozen=True)
class Speed:
    """How fast an arm rises in a goal."""

    arm: str
    suite: str
    reward: str
    images: float
    """Up to which heights are told."""
    height: Estimate
    difference: Estimate | None
    """Of heights, from the baseline's; None: this is it, or they have no seed in common."""
    target: float | None
    reached: bool | None
    """None: there is no target."""
    images_to_target: Estimate | None
    """None: there is no target. Infinite: not reached (`passages.Passage`)."""
    minutes_to_target: Estimate | None
    """Of steps, without evaluations."""
    images_saved: Estimate | None
    """How many images earlier than the baseline; None: this is it, or one of them does not reach the target."""

    @property
    def name(self) -> str:
        return f"{self.suite}/{self.reward}"

    def to_target(self) -> str:
        """`2,304 images (1,920 to 3,100, n=64)`, or that the target is not reached."""
        images = self.images_to_target
        if images is None:
            return ""
        if not self.reached:
            return f"not reached (may be from {images.low:,.0f} images on)" if _finite(images.low) else "not reached"
        return f"{images.mean:,.0f} images ({_ends(images, ',.0f')}n={images.n})"

    def in_minutes(self) -> str:
        """`5.2 min (4.3 to 7.0)`."""
        minutes = self.minutes_to_target
        if minutes is None or not self.reached:
            return ""
        ends = _ends(minutes, ".1f")[:-2]
        return f"{minutes.mean:.1f} min" + (f" ({ends})" if ends else "")

    def saved(self) -> str:
        """`420 images earlier (110 to 900)`; a minus: later."""
        if self.images_saved is None:
            return ""
        ends = _ends(self.images_saved, "+,.0f")[:-2]
        return f"{self.images_saved.mean:+,.0f} images earlier ({ends})" if ends else ""


def _finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _ends(found: Estimate, form: str) -> str:
    """`1,920 to never, `; nothing without an interval."""
    ends = [f"{end:{form}}" if math.isfinite(end) else "never" for end in (found.low, found.high) if end is not None]
    return f"{' to '.join(ends)}, " if ends else ""


Courses = dict[str, dict[int, Course]]
"""Arm to seed to its run."""


def read_courses(
    trials: Sequence[Trial], metrics: Mapping[str, Sequence[Mapping[str, Any]]], problems: Problems
) -> Courses:
    """Courses of finished trials.

    Args:
        trials: whose `before` and `after` can be read.
        metrics: lines of `metrics.jsonl` by trial.
        problems: told of a damaged evaluation, which is left out.
    """
    found: Courses = {}
    for trial in trials:
        folder, config = trial.folder.evaluations, trial.config
        files = [folder / "before.json", *folder.glob("step-*.json"), folder / "after.json"]
        read = [problems.reading(lambda file=file: Evaluation.load(file), "its curve lacks it") for file in files]
        evaluations = sorted((e for e in read if e is not None), key=lambda evaluation: evaluation.step)
        per_batch, updates = config.rollout.images_per_step, config.trainer.num_iterations
        spent = [spent_until(metrics[trial.name], e.step, per_batch, updates) for e in evaluations]
        images, minutes = np.array(spent, dtype=np.float64).reshape(-1, 2).T
        batches = np.array([e.step // updates for e in evaluations])
        found.setdefault(trial.arm, {})[trial.seed] = Course(batches, images, minutes, tuple(evaluations))
    return found


def measure_speed(plan: StudyPlan, matrix: Matrix, courses: Courses) -> list[Speed]:
    """Every trained arm of the matrix in every goal; nothing where no run was evaluated on its way."""
    if not any(len(course.images) > 2 for by_seed in courses.values() for course in by_seed.values()):
        return []
    arms = [arm for arm in matrix.arms if arm in courses]
    columns = {column.name: column for column in matrix.columns}
    return [
        speed
        for goal in plan.goals
        if goal.name in columns
        for speed in _of_goal(columns[goal.name], goal.target, arms, matrix.baseline, courses)
    ]


def _of_goal(column: Column, target: float | None, arms: Sequence[str], baseline: str, courses: Courses) -> list[Speed]:
    courses = on_one_grid({arm: {seed: run.measured(column) for seed, run in courses[arm].items()} for arm in arms})
    images = min(course.images[-1] for arm in arms for course in courses[arm].values())
    tables = {arm: heights(courses[arm], column, images) for arm in arms}
    estimates = paired_bootstrap(list(tables.values()), seed_spread(list(tables.values()), len(arms)), paired=False)
    differences = _differences(column, arms, baseline, courses, tables)
    lines = {arm: mean_line(courses[arm], column) for arm in arms}
    passages = {} if target is None else find_passages(lines, target, baseline)
    return [
        Speed(arm, column.suite, column.reward, images, height, differences.get(arm), target, *_told(passages.get(arm)))
        for arm, height in zip(arms, estimates, strict=True)
    ]


def _told(passage: Passage | None) -> tuple[bool | None, Estimate | None, Estimate | None, Estimate | None]:
    if passage is None:
        return None, None, None, None
    return math.isfinite(passage.images.mean), passage.images, passage.minutes, passage.saved


def _differences(
    column: Column, arms: Sequence[str], baseline: str, courses: Courses, tables: Mapping[str, np.ndarray]
) -> dict[str, Estimate]:
    """Of heights from the baseline's, of the seeds that both have."""
    pairs = {}
    for arm in arms:
        seeds = sorted(courses[arm])
        if baseline == START:
            flat = np.stack([courses[arm][seed].scores(column)[:, 0] for seed in seeds], 1)
            pairs[arm] = tables[arm] - flat
        elif arm != baseline and (shared := sorted(set(seeds) & set(courses[baseline]))):
            others = sorted(courses[baseline])
            pairs[arm] = np.stack(
                [tables[arm][:, seeds.index(s)] - tables[baseline][:, others.index(s)] for s in shared], 1
            )
    if not pairs:
        return {}
    values = list(pairs.values())
    return dict(zip(pairs, paired_bootstrap(values, seed_spread(values, len(values))), strict=True))


def heights(runs: Mapping[int, Course], column: Column, images: float) -> np.ndarray:
    """Mean height of every prompt's course up to so many images, `[num_prompts, num_seeds]`."""
    found = []
    for seed in sorted(runs):
        course = runs[seed]
        inside = course.images < images
        x = np.append(course.images[inside], images)
        scores = course.scores(column)
        ends = np.array([np.interp(images, course.images, row) for row in scores])
        y = np.column_stack([scores[:, inside], ends])
        found.append(np.trapezoid(y, x, axis=1) / images)
    return np.stack(found, 1)


def mean_line(runs: Mapping[int, Course], column: Column) -> Line:
    """The arm's line through the evaluations that all of its seeds have: one may lack a damaged one."""
    common = set.intersection(*({e.step for e in course.evaluations} for course in runs.values()))
    picked = [course.only([e.step in common for e in course.evaluations]) for _, course in sorted(runs.items())]
    return Line(
        np.mean([course.images for course in picked], axis=0),
        np.mean([course.minutes for course in picked], axis=0),
        np.stack([course.scores(column) for course in picked], axis=1),
    )


def on_one_grid(courses: Courses) -> Courses:
    """Courses at the batches of rollouts at which all arms were evaluated, and at their ends: an arm that is evaluated
    more often would seem to be there earlier, or later.
    """
    by_arm = [set().union(*(course.batches.tolist() for course in runs.values())) for runs in courses.values()]
    common = set.intersection(*by_arm)
    return {
        arm: {
            seed: course.only([batch in common or batch == course.batches[-1] for batch in course.batches])
            for seed, course in runs.items()
        }
        for arm, runs in courses.items()
    }


def course_lines(plan: StudyPlan, matrix: Matrix, courses: Courses) -> dict[str, list[list[dict[str, float]]]]:
    """Arm to the points of each of its runs, by `step` (images) and the goals' names: what `bands.draw_bands` draws."""
    goals = {goal.name for goal in plan.goals}
    columns = [column for column in matrix.columns if column.name in goals]
    return {arm: [_points(run, columns) for run in courses[arm].values()] for arm in matrix.arms if arm in courses}


def _points(run: Course, columns: Sequence[Column]) -> list[dict[str, float]]:
    points: dict[float, dict[str, float]] = {images: {"step": images} for images in run.images.tolist()}
    for column in columns:
        measured = run.measured(column)
        for images, score in zip(measured.images.tolist(), measured.scores(column).mean(axis=0), strict=True):
            points[images][column.name] = float(score)
    return list(points.values())
