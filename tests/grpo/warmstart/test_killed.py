"""The command in a process of its own: SIGKILL at any moment, and SIGTERM, leave a run that resumes to the same end."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from blip3o_grpo.configs import WarmstartConfig, dump_config
from blip3o_grpo.run.folder import WARMSTART, RunFolder
from blip3o_grpo.run.manifest import fault
from blip3o_grpo.run.metrics import read_metrics
from tests.grpo.warmstart.test_supervised import assert_same_end

WAIT_S = 120.0


class Life:
    """A process of the command, until it ends or is killed."""

    def __init__(self, config: WarmstartConfig, recipe: Path):
        recipe.write_text(dump_config(config))
        self.folder = RunFolder(config.run_dir, WARMSTART)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "blip3o_grpo.cli", "warmstart", str(recipe)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )

    def end(self, number: int, when: Callable[[], object]) -> tuple[int, str]:
        """Send a signal as soon as `when` says so; exit code and stderr."""
        deadline = time.monotonic() + WAIT_S
        while not when() and time.monotonic() < deadline:
            assert self.process.poll() is None, self.process.communicate()[1]
            time.sleep(0.001)
        self.process.send_signal(number)
        stderr = self.process.communicate(timeout=WAIT_S)[1]
        return self.process.returncode, stderr


def check_what_is_left(folder: RunFolder) -> None:
    """Everything that has its final name is complete."""
    for path in folder.checkpoints.glob("checkpoint-*"):
        assert fault(path, int(path.name.removeprefix("checkpoint-")), full=True) is None
    steps = [line["step"] for line in read_metrics(folder.metrics)]
    assert steps == list(range(1, len(steps) + 1)) and len(steps) >= folder.newest_step()


@pytest.fixture
def long(config) -> WarmstartConfig:
    return config.model_copy(update={"max_steps": 8, "checkpoint_every_steps": 2})


def test_a_run_that_was_killed_in_a_save_and_then_terminated_resumes_to_the_same_end(long, run, tmp_path):
    whole, _ = run(long)
    again = long.model_copy(update={"run_dir": str(tmp_path / "again")})
    folder = RunFolder(again.run_dir, WARMSTART)

    life = Life(again, tmp_path / "recipe.yaml")
    code, _ = life.end(signal.SIGKILL, lambda: list(folder.staging.glob("checkpoint-4/*.safetensors")))
    assert code == -signal.SIGKILL
    check_what_is_left(folder)
    assert folder.newest_step() in (2, 4)

    told = len(read_metrics(folder.metrics))
    life = Life(again, tmp_path / "recipe.yaml")
    code, stderr = life.end(signal.SIGTERM, lambda: told < len(read_metrics(folder.metrics)))
    assert code == 143 and stderr.startswith("stopped; the same command resumes") and stderr.count("\n") == 1
    check_what_is_left(folder)
    assert 8 > folder.newest_step() == len(read_metrics(folder.metrics)) > told

    run(again)
    assert_same_end(folder.path, whole.run_dir)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_a_sigkill_at_random_moments_never_leaves_a_run_that_cannot_resume(long, run, tmp_path, seed):
    started = time.monotonic()
    whole, _ = run(long)
    took, draw = time.monotonic() - started, random.Random(seed)
    again = long.model_copy(update={"run_dir": str(tmp_path / "again")})
    folder = RunFolder(again.run_dir, WARMSTART)
    for _ in range(4):
        life = Life(again, tmp_path / "recipe.yaml")
        while not folder.config.is_file() and life.process.poll() is None:
            time.sleep(0.01)
        until = time.monotonic() + draw.uniform(0, took / 2)
        code, _ = life.end(signal.SIGKILL, lambda until=until: time.monotonic() > until)
        assert code == -signal.SIGKILL
        check_what_is_left(folder)
    run(again)
    assert_same_end(folder.path, whole.run_dir)
