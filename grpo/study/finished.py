"""What a study's folder holds so far: its finished trials compared, and the report of them. Runs nothing."""

from __future__ import annotations

from pathlib import Path

from pydantic import TypeAdapter
from typing_extensions import TypedDict  # pydantic asks for it before Python 3.12

from blip3o_grpo.configs import expand_user
from blip3o_grpo.configs.regular_files import is_regular
from blip3o_grpo.run.files import read_object
from blip3o_grpo.study.conclusions import Conclusions, conclude
from blip3o_grpo.study.design import StudyPlan, read_plan
from blip3o_grpo.study.matrix import Matrix, build_matrix, read_scores
from blip3o_grpo.study.report import write_study_report

FINISHED = "finished"
NOT_FINISHED = "not finished"


class StudySummary(TypedDict):
    """Of `study.json`, what a report reads."""

    trials: dict[str, str]


def compare_finished(plan: StudyPlan) -> tuple[Matrix | None, Conclusions | None]:
    """What the finished trials show; None where no trial is finished."""
    matrix = build_matrix(plan, read_scores(plan))
    return matrix, conclude(matrix, [arm.name for arm in plan.study.arms], plan.goals) if matrix else None


def report_study(folder: str | Path, out: str | Path | None = None) -> Path:
    """Write the report of a study folder, finished or not, and return its path; runs nothing.

    Args:
        folder: the `study_dir`.
        out: file to write; default `report.html` in the folder.

    Raises:
        ConfigError, PromptError, RunFileError: the folder's files are no study's.
    """
    plan = read_plan(expand_user(folder))
    matrix, conclusions = compare_finished(plan)
    return write_study_report(plan, matrix, conclusions, read_failures(plan), None if out is None else Path(out))


def read_failures(plan: StudyPlan) -> dict[str, str]:
    """Trials that failed when the study last ended by itself, and are not finished since: name to last error line."""
    file = plan.folder / "study.json"
    if not is_regular(file):
        return {}
    states = read_object(file, TypeAdapter(StudySummary))["trials"]
    open_ = {trial.name for trial in plan.trials if not trial.finished}
    return {name: state for name, state in states.items() if name in open_ and state not in (FINISHED, NOT_FINISHED)}
