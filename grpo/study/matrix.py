"""The matrix of a study: every arm and the untrained policy, measured by every reward on every suite.

A cell is the mean over a suite's prompts of the mean over seeds and images. A comparison pairs prompts and seeds, has a
95 % interval over both, and is called better or worse only if its p-value holds after the correction over its whole
family and the seeds agree in sign.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import combinations
from typing import Any

import numpy as np

from blip3o_grpo.configs.study import START, weights_of
from blip3o_grpo.evaluation.heldout import Evaluation
from blip3o_grpo.evaluation.multiple_comparisons import correct
from blip3o_grpo.evaluation.statistics import SeedSpread, paired_bootstrap, seed_spread
from blip3o_grpo.study.design import StudyPlan

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
    """With which the arm was trained on this reward, by this name or another; 0: only measured."""
    mean: float
    low: float | None
    high: float | None
    num_prompts: int
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
    low: float | None
    high: float | None
    p: float
    p_adjusted: float
    verdict: str
    """`better`, `worse`, or empty where nothing was shown."""
    num_prompts: int
    seeds: dict[int, float]
    """Difference of each seed."""

    @property
    def name(self) -> str:
        return f"{self.suite}/{self.reward}"

    def reversed(self) -> Comparison:
        """The same comparison, seen from the other arm."""
        turned = {"better": "worse", "worse": "better", "": ""}
        return replace(
            self,
            arm=self.against,
            against=self.arm,
            difference=-self.difference,
            low=None if self.high is None else -self.high,
            high=None if self.low is None else -self.low,
            verdict=turned[self.verdict],
            seeds={seed: -value for seed, value in self.seeds.items()},
        )


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
    against_start: list[Comparison]
    """Every trained arm against the untrained policy; where that is the baseline, the same as `against_baseline`."""

    def cell(self, arm: str, column: Column) -> Cell:
        return next(c for c in self.cells if (c.arm, c.suite, c.reward) == (arm, column.suite, column.reward))

    def comparison(self, arm: str, column: Column) -> Comparison | None:
        found = (c for c in self.against_baseline if (c.arm, c.suite, c.reward) == (arm, column.suite, column.reward))
        return next(found, None)

    def between(self, arm: str, rival: str) -> list[Comparison]:
        """All measures of two trained arms, `arm` against `rival`."""
        return [c if c.arm == arm else c.reversed() for c in self.between_arms if {c.arm, c.against} == {arm, rival}]


Scores = dict[str, dict[int, Evaluation]]
"""Arm to seed to its held-out result."""


def read_scores(plan: StudyPlan, left_out: Collection[str] = ()) -> Scores:
    """Held-out results of all finished trials; the untrained policy's come from any of them with the seed.

    Args:
        left_out: names of trials that are not read.

    Raises:
        RunFileError: a trial's files are damaged.
    """
    scores: Scores = {START: {}}
    for trial in plan.trials:
        if trial.finished and trial.name not in left_out:
            evaluations = trial.folder.evaluations
            scores.setdefault(trial.arm, {})[trial.seed] = Evaluation.load(evaluations / "after.json")
            scores[START].setdefault(trial.seed, Evaluation.load(evaluations / "before.json"))
    return scores


def build_matrix(plan: StudyPlan, scores: Scores) -> Matrix | None:
    """Cells and comparisons of the finished arms, or None if no trial is finished."""
    if len(scores) == 1:
        return None
    study = plan.study
    weights = {arm.name: weights_of(arm, plan.base.rewards) for arm in study.arms}
    columns = make_columns(plan, scores)
    arms = [name for name in (START, *weights) if name in scores]
    cells = [cell for column in columns for cell in make_cells(arms, column, scores, weights)]
    baseline = study.baseline if study.baseline in scores else START
    trained = [arm for arm in arms if arm != START]

    def compared(pairs: Sequence[tuple[str, str]]) -> list[Comparison]:
        return compare(pairs, columns, scores, study.correction)

    against_baseline = compared([(arm, baseline) for arm in arms if arm != baseline])
    return Matrix(
        columns,
        arms,
        baseline,
        cells,
        against_baseline,
        compared([(b, a) for a, b in combinations(trained, 2)]),
        against_baseline if baseline == START else compared([(arm, START) for arm in trained]),
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


def values(scores: Scores, arm: str, column: Column, seeds: Sequence[int]) -> np.ndarray:
    """`[num_prompts, num_seeds]` scores of an arm's runs."""
    runs = [scores[arm][seed].per_prompt for seed in seeds]
    return np.array([[run[name][column.reward] for run in runs] for name in column.prompt_ids], dtype=np.float64)


def make_cells(
    arms: Sequence[str], column: Column, scores: Scores, weights: Mapping[str, Mapping[str, float]]
) -> list[Cell]:
    """One cell per arm; the untrained policy does not depend on the training seed, its images do."""
    tables = {arm: values(scores, arm, column, sorted(scores[arm])) for arm in arms}
    trained = [table for arm, table in tables.items() if arm != START]
    spread = seed_spread(trained, len(trained))
    of_start = [0.0] * (len(tables) - len(trained))  # the untrained policy comes first
    spread = SeedSpread([*of_start, *spread.variances], spread.degrees)
    estimates = paired_bootstrap(list(tables.values()), spread, paired=False)
    return [
        Cell(
            arm,
            column.suite,
            column.reward,
            weights.get(arm, {}).get(column.reward, 0.0),
            estimate.mean,
            estimate.low,
            estimate.high,
            estimate.n,
            _by_seed(tables[arm], sorted(scores[arm])),
        )
        for arm, estimate in zip(arms, estimates, strict=True)
    ]


def compare(
    pairs: Sequence[tuple[str, str]], columns: Sequence[Column], scores: Scores, correction: str
) -> list[Comparison]:
    """All pairs in all columns, corrected together; a pair without a common seed is left out."""
    shared = {(arm, against): sorted(set(scores[arm]) & set(scores[against])) for arm, against in pairs}
    shared = {pair: seeds for pair, seeds in shared.items() if seeds}
    if not shared:
        return []
    num_independent = len({arm for pair in shared for arm in pair}) - 1
    found: list[dict[str, Any]] = []
    for column in columns:
        differences = [
            values(scores, arm, column, seeds) - values(scores, against, column, seeds)
            for (arm, against), seeds in shared.items()
        ]
        estimates = paired_bootstrap(differences, seed_spread(differences, num_independent))
        for ((arm, against), seeds), table, estimate in zip(shared.items(), differences, estimates, strict=True):
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
                    "num_prompts": estimate.n,
                    "seeds": _by_seed(table, seeds),
                }
            )
    adjusted = correct([entry["p"] for entry in found], correction)
    return [
        Comparison(**entry, p_adjusted=p, verdict=verdict(entry["difference"], p, entry["seeds"].values()))
        for entry, p in zip(found, adjusted, strict=True)
    ]


def _by_seed(table: np.ndarray, seeds: Sequence[int]) -> dict[int, float]:
    return {seed: float(mean) for seed, mean in zip(seeds, table.mean(axis=0), strict=True)}


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
