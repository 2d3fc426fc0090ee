"""Sample efficiency: how many images, and minutes, every arm of a study takes to get where it goes.

A course is a run's held-out score against the images that it has learnt from: its evaluations before, during
(`evaluation.every_steps`) and after training, with straight lines between them. Of the courses of an arm are told

    height      mean height of the course, the area below it over its images, up to the images that all arms have
    to target   images and minutes at which the mean over prompts and seeds first reaches the goal's `target`

Heights are compared with the baseline's prompt by prompt and seed by seed, as final scores are (`matrix.py`); the
untrained policy's course is flat.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from blip3o_grpo.configs.study import START
from blip3o_grpo.evaluation.heldout import Evaluation
from blip3o_grpo.evaluation.statistics import (
    LEVEL,
    MIN_PROMPTS,
    NUM_RESAMPLES,
    Estimate,
    expanded_tail,
    paired_bootstrap,
    seed_spread,
)
from blip3o_grpo.report.reading import Problems
from blip3o_grpo.run.metrics import spent_until
from blip3o_grpo.study.design import StudyPlan, Trial
from blip3o_grpo.study.matrix import Column, Matrix


@dataclass(frozen=True)
class Course:
    """One run: E evaluations, the first one before training."""

    images: np.ndarray  # [E] learnt from until then
    minutes: np.ndarray  # [E] of its steps until then
    evaluations: tuple[Evaluation, ...]

    def measured(self, column: Column) -> Course:
        """The same without evaluations that lack a score of the column."""
        kept = [
            all(e.per_prompt.get(id_, {}).get(column.reward) is not None for id_ in column.prompt_ids)
            for e in self.evaluations
        ]
        evaluations = tuple(e for e, whole in zip(self.evaluations, kept, strict=True) if whole)
        return Course(self.images[kept], self.minutes[kept], evaluations)

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
    images_to_target: Estimate | None
    """None: there is no target. Its mean is infinite where the target is not reached, its `high` where resampled
    prompts do not always reach it."""
    minutes_to_target: float | None
    """Of steps, without evaluations; infinite where it is not reached."""

    @property
    def name(self) -> str:
        return f"{self.suite}/{self.reward}"

    def reached(self) -> str:
        """`2,304 images (1,920 to 3,100, n=64), 5.2 min`, or that the target is not reached."""
        found = self.images_to_target
        if found is None or math.isinf(found.mean):
            return "" if found is None else "not reached"
        ends = [f"{end:,.0f}" if math.isfinite(end) else "never" for end in (found.low, found.high) if end is not None]
        interval = f"{' to '.join(ends)}, " if ends else ""
        return f"{found.mean:,.0f} images ({interval}n={found.n}), {self.minutes_to_target:.1f} min"


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
        found.setdefault(trial.arm, {})[trial.seed] = Course(images, minutes, tuple(evaluations))
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
    courses = {arm: {seed: run.measured(column) for seed, run in courses[arm].items()} for arm in arms}
    images = min(course.images[-1] for arm in arms for course in courses[arm].values())
    tables = {arm: heights(courses[arm], column, images) for arm in arms}
    estimates = paired_bootstrap(list(tables.values()), seed_spread(list(tables.values()), len(arms)), paired=False)
    differences = _differences(column, arms, baseline, courses, tables)
    found = []
    for arm, height in zip(arms, estimates, strict=True):
        reached = None if target is None else passage(courses[arm], column, target, lambda course: course.images)
        minutes = None if target is None else passage(courses[arm], column, target, lambda course: course.minutes).mean
        found.append(
            Speed(arm, column.suite, column.reward, images, height, differences.get(arm), target, reached, minutes)
        )
    return found


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


def passage(runs: Mapping[int, Course], column: Column, target: float, of: Callable[[Course], np.ndarray]) -> Estimate:
    """Where the mean over prompts and seeds first reaches the target, with its 95 % interval over prompts.

    Args:
        of: the horizontal axis of a course. Courses of one arm are evaluated at the same steps; where seeds differ, in
            minutes or since an evaluation is damaged, their means at the evaluations that all have count.
    """
    common = sorted(set.intersection(*({e.step for e in course.evaluations} for course in runs.values())))
    picked = [[e.step in common for e in course.evaluations] for course in runs.values()]
    x = np.mean([of(course)[rows] for course, rows in zip(runs.values(), picked, strict=True)], axis=0)
    scores = np.mean(
        [course.scores(column)[:, rows] for course, rows in zip(runs.values(), picked, strict=True)], axis=0
    )  # [num_prompts, E]
    num_prompts = len(scores)
    value = first_reached(x, scores.mean(axis=0), target)
    if num_prompts < MIN_PROMPTS:
        return Estimate(value, None, None, num_prompts)
    draws = np.random.default_rng(0).integers(num_prompts, size=(NUM_RESAMPLES, num_prompts))
    found = np.sort([first_reached(x, scores[rows].mean(axis=0), target) for rows in draws])
    tail = expanded_tail((1 - LEVEL) / 2, num_prompts)
    low, high = math.floor(tail * (len(found) - 1)), math.ceil((1 - tail) * (len(found) - 1))
    return Estimate(value, float(found[low]), float(found[high]), num_prompts)


def first_reached(x: np.ndarray, scores: np.ndarray, target: float) -> float:
    """Where straight lines through the points first reach the target; infinite: nowhere."""
    above = np.flatnonzero(scores >= target)
    if not len(above):
        return math.inf
    last = above[0]
    if last == 0:
        return float(x[0])
    share = (target - scores[last - 1]) / (scores[last] - scores[last - 1])
    return float(x[last - 1] + share * (x[last] - x[last - 1]))


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
