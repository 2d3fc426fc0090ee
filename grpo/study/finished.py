"""What a study's folder holds so far: its finished trials compared, and the report of them. Runs nothing."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

from pydantic import TypeAdapter
from typing_extensions import TypedDict  # pydantic asks for it before Python 3.12

from blip3o_grpo.configs import expand_user
from blip3o_grpo.evaluation.heldout import Evaluation
from blip3o_grpo.report.reading import Problems
from blip3o_grpo.run.files import read_object
from blip3o_grpo.study.conclusions import Conclusions, conclude
from blip3o_grpo.study.design import StudyPlan, Trial, read_plan
from blip3o_grpo.study.matrix import Matrix, build_matrix, read_scores
from blip3o_grpo.study.report import write_study_report

FINISHED = "finished"
NOT_FINISHED = "not finished"


class StudySummary(TypedDict):
    """Of `study.json`, what a report reads."""

    trials: dict[str, str]


def compare_finished(plan: StudyPlan, left_out: Collection[str] = ()) -> tuple[Matrix | None, Conclusions | None]:
    """What the finished trials show, without those `left_out`; None where there is none.

    Raises:
        RunFileError: a trial's files are damaged.
    """
    matrix = build_matrix(plan, read_scores(plan, left_out))
    return matrix, conclude(matrix, [arm.name for arm in plan.study.arms], plan.goals) if matrix else None


def report_study(
    folder: str | Path, out: str | Path | None = None, warn: Callable[[str], None] = lambda _: None
) -> Path:
    """Write the report of a study folder, finished or not, and return its path; runs nothing.

    A trial with a damaged file is left out, and that is said.

    Args:
        folder: the `study_dir`.
        out: file to write; default `report.html` in the folder.
        warn: called with one sentence per damaged file; the page says the same.

    Raises:
        ConfigError, PromptError: the study's own files, without which nothing can be told of it, are no study's.
    """
    plan = read_plan(expand_user(folder))
    problems = Problems()
    left_out = {trial.name for trial in plan.trials if trial.finished and not _readable(trial, problems)}
    matrix, conclusions = compare_finished(plan, left_out)
    failed = problems.reading(lambda: read_failures(plan), "which trials failed is not known") or {}
    target = None if out is None else Path(out)
    written = write_study_report(plan, matrix, conclusions, failed, target, left_out=left_out, problems=problems)
    for problem in problems.sentences:
        warn(problem)
    return written


def _readable(trial: Trial, problems: Problems) -> bool:
    """Whether a finished trial can be compared."""
    files = [trial.folder.evaluations / f"{name}.json" for name in ("before", "after")]
    return all(
        problems.reading(lambda file=file: Evaluation.load(file), f"{trial.name} is not compared") is not None
        for file in files
    )


def read_failures(plan: StudyPlan) -> dict[str, str]:
    """Trials that failed when the study last ended by itself, and are not finished since: name to last error line.

    Raises:
        RunFileError: `study.json` is damaged.
    """
    file = plan.folder / "study.json"
    if not file.exists():
        return {}
    states = read_object(file, TypeAdapter(StudySummary))["trials"]
    open_ = {trial.name for trial in plan.trials if not trial.finished}
    return {name: state for name, state in states.items() if name in open_ and state not in (FINISHED, NOT_FINISHED)}
