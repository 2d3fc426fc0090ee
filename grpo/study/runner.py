"""Runs the trials of a study: Ray Tune decides when each starts, a run folder says whether it is finished.

Tune's own experiment state is thrown away: a run folder resumes by itself, from its checkpoints, and its summary is
written last. So a study that was killed at any moment continues with the same command.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import ray
from ray import tune
from rich.console import Console

from blip3o_grpo.cluster import ray_cluster
from blip3o_grpo.progress import activity
from blip3o_grpo.rollout.ray_seams import CHANGED_BY_RAY, QUIET_TUNE, TrialProgressCallback
from blip3o_grpo.run.folder import RunFolder
from blip3o_grpo.run.stopping import sigterm_as_sigint
from blip3o_grpo.study.design import StudyPlan, Trial
from blip3o_grpo.study.launch import LOG, TrialError, last_line, run_trial
from blip3o_grpo.study.progress import StudyProgress

TRIAL_MODULE = "blip3o_grpo.study.trial"


class StudyStopped(KeyboardInterrupt):
    """The user stopped a study.

    Args:
        failed: trials that had failed until then, with their last error line.
    """

    def __init__(self, failed: dict[str, str]):
        super().__init__()
        self.failed = failed


def run_trials(plan: StudyPlan, console: Console) -> dict[str, str]:
    """Run what is not finished yet and return the failed trials' names with their last error line.

    Raises:
        StudyStopped: the user stopped the study.
    """
    pending = [trial for trial in plan.trials if not trial.finished]
    done = len(plan.trials) - len(pending)
    if done:
        console.print(f"{done} of {len(plan.trials)} trials are finished already")
    if not pending:
        return {}
    for trial in pending:
        trial.folder.prepare(trial.config)
    os.environ.update(QUIET_TUNE)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # failures are reported in one line each
    scratch = plan.folder / ".tune"
    shutil.rmtree(scratch, ignore_errors=True)
    with ExitStack() as stack:
        with activity(console, "starting Ray"):
            stack.enter_context(ray_cluster(plan.base, plan.folder / "failures"))
        stack.enter_context(sigterm_as_sigint())
        progress = stack.enter_context(StudyProgress(console, plan.trials, plan.study.trials.concurrency))
        jobs = {trial.name: _job(trial, plan.trials) for trial in pending}
        resources = {"cpu": plan.study.trials.cpus, "gpu": plan.study.trials.gpus}
        tuner = tune.Tuner(
            tune.with_resources(tune.with_parameters(run_trial, jobs=jobs), resources),
            param_space={"trial": tune.grid_search(list(jobs))},
            tune_config=tune.TuneConfig(
                max_concurrent_trials=plan.study.trials.concurrency,
                trial_dirname_creator=lambda trial: trial.config["trial"].replace("/", "-"),
            ),
            run_config=tune.RunConfig(
                name="trials", storage_path=str(scratch), verbose=0, callbacks=[_Announcer(progress)]
            ),
        )
        results = tuner.fit()
    shutil.rmtree(scratch, ignore_errors=True)
    failed = {
        result.config["trial"]: _reason(result.error, jobs[result.config["trial"]])
        for result in results
        if result.error is not None
    }
    if any(not trial.finished and trial.name not in failed for trial in pending):
        raise StudyStopped(failed)
    return failed


def _reason(error: Exception, job: dict[str, Any]) -> str:
    """The run's last words, or Ray's where the run had none."""
    if TrialError.__name__ in str(error):
        return last_line(RunFolder(job["run_dir"]).path / LOG)
    return str(error).strip().splitlines()[-1]


def _job(trial: Trial, trials: Sequence[Trial]) -> dict[str, Any]:
    siblings = [str(t.folder.path) for t in trials if t.seed == trial.seed and t.arm != trial.arm]
    return {
        "run_dir": str(trial.folder.path),
        "siblings": siblings,
        "module": TRIAL_MODULE,
        "variables": {key: os.environ[key] for key in CHANGED_BY_RAY if key in os.environ},
        "folder": os.getcwd(),
        "address": ray.get_runtime_context().gcs_address,
        "path": os.pathsep.join(entry or os.getcwd() for entry in sys.path),
    }


class _Announcer(TrialProgressCallback):
    """Tells the study's terminal when a trial starts and ends, in place of Tune's own lines."""

    def __init__(self, progress: StudyProgress):
        super().__init__()
        self.progress = progress

    def on_trial_start(self, iteration: int, trials: list, trial: Any, **_: Any) -> None:
        self.progress.start(trial.config["trial"])

    def on_trial_result(self, iteration: int, trials: list, trial: Any, result: dict, **_: Any) -> None:
        """Nothing: a run writes its steps into its folder."""

    def on_trial_complete(self, iteration: int, trials: list, trial: Any, **_: Any) -> None:
        self.progress.end(trial.config["trial"])

    def on_trial_error(self, iteration: int, trials: list, trial: Any, **_: Any) -> None:
        self.progress.end(trial.config["trial"], failed=True)

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles callbacks to restore an experiment, which a study does from its run folders."""
        return {}
