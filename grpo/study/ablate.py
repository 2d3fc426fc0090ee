"""`blip3o-grpo ablate`: check the study, run what is missing, compare what is finished, write it down."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console

from blip3o_grpo.configs.atomic import write_atomically
from blip3o_grpo.configs.study import StudyConfig
from blip3o_grpo.progress import activity
from blip3o_grpo.run.environment import record_start
from blip3o_grpo.study.conclusions import Conclusions
from blip3o_grpo.study.design import ENVIRONMENT_FILE, StudyPlan, plan_study
from blip3o_grpo.study.finished import FINISHED, NOT_FINISHED, compare_finished
from blip3o_grpo.study.matrix import Matrix, as_csv
from blip3o_grpo.study.report import write_study_report
from blip3o_grpo.study.results import write_json
from blip3o_grpo.terminal import show

REPORT = "report.html"


@dataclass(frozen=True)
class StudyResult:
    """What a study found, and what it could not find."""

    folder: Path
    failed: dict[str, str]
    """Trial name to its last error line."""
    matrix: Matrix | None
    conclusions: Conclusions | None


def run_study(study: StudyConfig, console: Console) -> StudyResult:
    """Run or resume a study and write its results; a failed trial does not stop the others.

    Raises:
        ConfigError, PromptError, RewardError, CheckpointError: before the first trial starts.
        KeyboardInterrupt: the user stopped it; the report tells what is there.
    """
    with activity(console, "checking the study's arms, prompts and rewards"):
        plan = plan_study(study)
        record_start(plan.folder / ENVIRONMENT_FILE)
        from blip3o_grpo.study.runner import StudyStopped, run_trials
    try:
        failed = run_trials(plan, console)
    except StudyStopped as stop:
        result = write_results(plan, stop.failed)
        done = sum(trial.finished for trial in plan.trials)
        show(console, f"stopped with {done} of {len(plan.trials)} trials finished")
        show(console, f"report of what is there: {result.folder / REPORT}")
        raise
    return write_results(plan, failed)


def write_results(plan: StudyPlan, failed: dict[str, str]) -> StudyResult:
    """Compare the finished trials; write `study.json`, `matrix.csv`, `comparisons.csv` and `report.html`."""
    matrix, conclusions = compare_finished(plan)
    summary = {
        "trials": {
            trial.name: FINISHED if trial.finished else failed.get(trial.name, NOT_FINISHED) for trial in plan.trials
        },
        "baseline": matrix and matrix.baseline,
        "correction": plan.study.correction,
        "goals": [goal.model_dump() for goal in plan.goals],
        "matrix": [asdict(cell) for cell in matrix.cells] if matrix else [],
        "against_baseline": [asdict(c) for c in matrix.against_baseline] if matrix else [],
        "between_arms": [asdict(c) for c in matrix.between_arms] if matrix else [],
        "conclusions": conclusions and asdict(conclusions),
    }
    write_json(plan.folder / "study.json", summary)
    if matrix:
        write_atomically(plan.folder / "matrix.csv", as_csv(matrix.cells))
        comparisons = [*matrix.against_baseline, *matrix.between_arms]
        write_atomically(plan.folder / "comparisons.csv", as_csv(comparisons))
    write_study_report(plan, matrix, conclusions, failed)
    return StudyResult(plan.folder, failed, matrix, conclusions)
