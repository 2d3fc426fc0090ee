"""The matrix of a study: every arm and the untrained policy, measured by every reward on every suite.

A cell is the mean over a suite's prompts of the mean over seeds and images. A comparison pairs prompts and seeds, has a
95 % interval over prompts, and is called better or worse only if its p-value holds after the correction over its whole
family and the seeds agree in sign.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import combinations
from typing import Any

import numpy as np

from configs.study import START
from grpo.evaluation import Evaluation
from grpo.study.plan import StudyPlan
from grpo.study.statistics import correct, paired_bootstrap

SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Column:
    """What is measured: a reward on the prompts of a suite that it applies to."""

    suite: str
    reward: str
    prompt_ids: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"{self.suite}/{self.reward}"


@dataclass(frozen=True)
class Cell:
    """An arm measured by one column."""

    arm: str
    suite: str
    reward: str
    weight: float
    """With which the arm was trained on this reward; 0: only measured."""
    mean: float
    low: float
    high: float
    seeds: dict[int, float]
    """Mean of each seed's run."""


@dataclass(frozen=True)
class Comparison:
    """`arm` minus `against`, on the seeds and prompts that both have."""

    arm: str
    against: str
    suite: str
    reward: str
    difference: float
    low: float
    high: float
    p: float
    p_adjusted: float
    verdict: str
    """`better`, `worse`, or empty where nothing was shown."""
    num_prompts: int
    seeds: dict[int, float]
    """Difference of each seed."""


@dataclass(frozen=True)
class Matrix:
    """The result of a study."""

    columns: list[Column]
    arms: list[str]
    """Those with a finished run, the untrained policy first."""
    baseline: str
    """The study's, or the untrained policy if the study's has no finished run."""
    cells: list[Cell]
    against_baseline: list[Comparison]
    """Every other arm against the baseline: one family of comparisons."""
    between_arms: list[Comparison]
    """Every pair of trained arms: another family."""

    def cell(self, arm: str, column: Column) -> Cell:
        return next(c for c in self.cells if (c.arm, c.suite, c.reward) == (arm, column.suite, column.reward))

    def comparison(self, arm: str, column: Column) -> Comparison | None:
        found = (c for c in self.against_baseline if (c.arm, c.suite, c.reward) == (arm, column.suite, column.reward))
        return next(found, None)


Scores = dict[str, dict[int, Evaluation]]
"""Arm to seed to its held-out result."""


def read_scores(plan: StudyPlan) -> Scores:
    """Held-out results of all finished trials; the untrained policy's come from any of them with the seed."""
    scores: Scores = {START: {}}
    for trial in plan.trials:
        if trial.finished:
            evaluations = trial.folder.evaluations
            scores.setdefault(trial.arm, {})[trial.seed] = Evaluation.load(evaluations / "after.json")
            scores[START].setdefault(trial.seed, Evaluation.load(evaluations / "before.json"))
    return scores


def build_matrix(plan: StudyPlan, scores: Scores) -> Matrix | None:
    """Cells and comparisons of the finished arms, or None if no trial is finished."""
    if len(scores) == 1:
        return None
    study = plan.study
    weights = {arm.name: arm.weights for arm in study.arms}
    columns = make_columns(plan, scores)
    arms = [name for name in (START, *weights) if name in scores]
    cells = [cell for column in columns for cell in make_cells(arms, column, scores, weights)]
    baseline = study.baseline if study.baseline in scores else START
    pairs = [(arm, baseline) for arm in arms if arm != baseline]
    trained = [arm for arm in arms if arm != START]
    return Matrix(
        columns,
        arms,
        baseline,
        cells,
        compare(pairs, columns, scores, study.correction),
        compare([(b, a) for a, b in combinations(trained, 2)], columns, scores, study.correction),
    )


def make_columns(plan: StudyPlan, scores: Scores) -> list[Column]:
    """Suites times rewards, on the prompts of the suite that the reward gave a score to in every run."""
    measured = [evaluation.per_prompt for by_seed in scores.values() for evaluation in by_seed.values()]
    columns = []
    for suite, prompts in plan.suites.items():
        for reward in plan.base.rewards:
            ids = tuple(
                p.id for p in prompts if all(run.get(p.id, {}).get(reward.name) is not None for run in measured)
            )
            if ids:
                columns.append(Column(suite, reward.name, ids))
    return columns


def values(scores: Scores, arm: str, seed: int, column: Column) -> np.ndarray:
    """`[num_prompts]` scores of one run."""
    per_prompt = scores[arm][seed].per_prompt
    return np.array([per_prompt[name][column.reward] for name in column.prompt_ids], dtype=np.float64)


def make_cells(
    arms: Sequence[str], column: Column, scores: Scores, weights: Mapping[str, Mapping[str, float]]
) -> list[Cell]:
    """One cell per arm."""
    per_seed = {arm: {seed: values(scores, arm, seed, column) for seed in sorted(scores[arm])} for arm in arms}
    estimates = paired_bootstrap(np.stack([np.mean(list(per_seed[arm].values()), axis=0) for arm in arms], axis=1))
    return [
        Cell(
            arm,
            column.suite,
            column.reward,
            weights.get(arm, {}).get(column.reward, 0.0),
            estimate.mean,
            estimate.low,
            estimate.high,
            {seed: float(scores.mean()) for seed, scores in per_seed[arm].items()},
        )
        for arm, estimate in zip(arms, estimates, strict=True)
    ]


def compare(
    pairs: Sequence[tuple[str, str]], columns: Sequence[Column], scores: Scores, correction: str
) -> list[Comparison]:
    """All pairs in all columns, corrected together; a pair without a common seed is left out."""
    found: list[dict[str, Any]] = []
    for column in columns:
        differences = {}
        for arm, against in pairs:
            seeds = sorted(set(scores[arm]) & set(scores[against]))
            if seeds:
                differences[arm, against] = {
                    seed: values(scores, arm, seed, column) - values(scores, against, seed, column) for seed in seeds
                }
        if not differences:
            continue
        stacked = np.stack([np.mean(list(by_seed.values()), axis=0) for by_seed in differences.values()], axis=1)
        for (arm, against), estimate in zip(differences, paired_bootstrap(stacked), strict=True):
            by_seed = differences[arm, against]
            found.append(
                {
                    "arm": arm,
                    "against": against,
                    "suite": column.suite,
                    "reward": column.reward,
                    "difference": estimate.mean,
                    "low": estimate.low,
                    "high": estimate.high,
                    "p": estimate.p,
                    "num_prompts": estimate.num_prompts,
                    "seeds": {seed: float(values.mean()) for seed, values in by_seed.items()},
                }
            )
    adjusted = correct([entry["p"] for entry in found], correction)
    return [
        Comparison(**entry, p_adjusted=p, verdict=verdict(entry["difference"], p, entry["seeds"].values()))
        for entry, p in zip(found, adjusted, strict=True)
    ]


def verdict(difference: float, p_adjusted: float, seeds: Any) -> str:
    """`better` or `worse` if it holds after the correction and in every seed, else nothing."""
    if p_adjusted >= SIGNIFICANT or any(seed * difference <= 0 for seed in seeds):
        return ""
    return "better" if difference > 0 else "worse"


def as_csv(rows: Sequence[Cell | Comparison]) -> str:
    """Rows of one kind as CSV; the seeds' values become columns of their own."""
    if not rows:
        return ""
    seeds = sorted({seed for row in rows for seed in row.seeds})
    names = [field.name for field in fields(rows[0]) if field.name != "seeds"]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([*names, *(f"seed_{seed}" for seed in seeds)])
    for row in rows:
        entry = asdict(row)
        writer.writerow([*(entry[name] for name in names), *(row.seeds.get(seed, "") for seed in seeds)])
    return buffer.getvalue()
