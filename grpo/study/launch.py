"""In Ray Tune's worker: one run in a process of its own. Imports nothing heavy: every trial pays for it.

The run itself is `blip3o_grpo.study.trial`, which is `blip3o-grpo train` on the run folder's configuration.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from blip3o_grpo.configs.regular_files import is_regular
from blip3o_grpo.rollout.ray_seams import driver_variables
from blip3o_grpo.run.folder import RunFolder

LOG = "train.log"


class TrialError(RuntimeError):
    """A run ended with an error; its last words."""


def run_trial(config: dict[str, Any], jobs: dict[str, dict[str, Any]]) -> None:
    """Run the trial that `config` names to its end, on the study's Ray cluster.

    Args:
        config: what Tune chose: `{"trial": name}`.
        jobs: by name: `run_dir`, `siblings` (runs with the same seed), `module` to run, `folder` to run it in, Ray
            `address`, Python `path`, and environment `variables`.

    Raises:
        TrialError: the run failed.
    """
    job = jobs[config["trial"]]
    run = RunFolder(job["run_dir"])
    share_start(run, [RunFolder(sibling) for sibling in job["siblings"]])
    is_regular(run.path / LOG)  # a pipe would wait for its reader
    own = {"PYTHONPATH": job["path"], "COLUMNS": "200"}
    with (run.path / LOG).open("a", encoding="utf-8") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", job["module"], str(run.config), str(os.getpid())],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=job["folder"],
            env={**driver_variables(os.environ, job["address"]), **job["variables"], **own},
            start_new_session=True,
        )
        if process.wait():
            raise TrialError(last_line(run.path / LOG))


def share_start(run: RunFolder, siblings: Sequence[RunFolder]) -> None:
    """Take over the evaluation of the starting policy from a run with the same seed: it would come out the same.

    Seeds, noise, prompts, rewards and policy of that evaluation cannot differ between the arms of a study.
    """
    target = run.evaluations / "before.json"
    source = next((s for s in siblings if (s.evaluations / target.name).is_file() and s.reward_state.is_file()), None)
    if target.is_file() or source is None:
        return
    for folder in (run.evaluations, run.grids):
        folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source.reward_state, run.reward_state)
    shutil.copyfile(source.grids / "before.png", run.grids / "before.png")
    shutil.copytree(source.evaluations / "before-images", run.evaluations / "before-images", dirs_exist_ok=True)
    staged = target.with_name(".before.json.tmp")
    shutil.copyfile(source.evaluations / target.name, staged)
    os.replace(staged, target)  # last: its presence means that all of it is there


def last_line(log: Path) -> str:
    """The last line of a log that says something."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else []
    return next((line.strip() for line in reversed(lines) if line.strip()), "no output")
