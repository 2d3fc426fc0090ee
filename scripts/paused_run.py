"""A real training run that is stopped (SIGSTOP) except while one of its steps is measured, for `bench_step.py`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from blip3o_grpo.configs import RunConfig
from scripts.process_tree import ProcessTree

KINDS = {"Sampler": "sample", "Decoder": "decode", "RewardWorker": "score", "RayTrainWorker": "learn"}
"""Stage of each Ray actor; that of trainer ranks includes their part in handing weights on, records and metrics."""
OTHERS = "Ray"
"""Its own processes, and the actors in which next to nothing happens."""
WARM_UP = 2
"""Steps of ours before the first one that counts."""
POLL_S = 0.005
STEP_WITHIN_S = 3600.0
END_WITHIN_S = 120.0


@dataclass(frozen=True)
class Turn:
    """One step of one side."""

    seconds: float
    cpu_seconds: float
    stages: Mapping[str, float]
    """CPU seconds by stage; of ours also by what is no stage."""
    others_cpu_seconds: float
    """Of the whole machine, without this side's."""
    stage_seconds: Mapping[str, float]
    """Wall seconds by stage. Of ours: busy seconds of all workers of a stage, which overlap."""


class MachineClock:
    """Wall and CPU seconds of the whole machine since it was made."""

    def __init__(self) -> None:
        self._started, self._busy = time.perf_counter(), _busy_seconds()

    def stop(self) -> tuple[float, float]:
        """Both."""
        return time.perf_counter() - self._started, _busy_seconds() - self._busy


def _busy_seconds() -> float:
    times = psutil.cpu_times()
    return sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0)


class PausedRun:
    """Context manager: `blip3o-grpo train`, stopped after its warm-up and after every step.

    Args:
        config: of the run; written to a file for the command.
        folder: for that file, the run and what the command prints.
    """

    def __init__(self, config: RunConfig, folder: Path):
        self._run = folder / "run"
        self._log = folder / "run.log"
        recipe = folder / "recipe.json"  # JSON is YAML
        recipe.write_text(json.dumps({**config.model_dump(mode="json"), "run_dir": str(self._run)}), encoding="utf-8")
        self._command = [sys.executable, "-c", "from blip3o_grpo.cli import app; app()", "train", str(recipe)]
        self._read = 0
        self.lines: list[dict[str, Any]] = []

    def __enter__(self) -> PausedRun:
        environment = {**os.environ, "RAY_ADDRESS": "local"}
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                self._command, stdout=log, stderr=subprocess.STDOUT, env=environment, start_new_session=True
            )
        self._tree = ProcessTree(self._process.pid, KINDS, OTHERS)
        self._cpu: dict[psutil.Process, float] = {}
        try:
            for _ in range(WARM_UP):
                self.step()
        except BaseException:
            self.__exit__()
            raise
        return self

    def step(self) -> Turn:
        """Let the run make a step, and stop it again.

        Raises:
            RuntimeError: it has ended, or makes no step.
        """
        clock, done = MachineClock(), len(self.lines)
        self._tree.go_on()
        while len(self.lines) == done:
            if self._process.poll() is not None:
                raise RuntimeError(f"the run ended with exit code {self._process.returncode}:\n{self._last_words()}")
            if clock.stop()[0] > STEP_WITHIN_S:
                raise RuntimeError(f"the run made no step in {STEP_WITHIN_S:.0f} s:\n{self._last_words()}")
            time.sleep(POLL_S)
            self._read_lines()
        self._tree.stop()
        seconds, machine = clock.stop()
        before, self._cpu = self._cpu, self._tree.cpu_seconds()
        spent, metrics = self._tree.spent(before, self._cpu), self.lines[-1]
        total = sum(spent.values())
        return Turn(seconds, total, spent, max(0.0, machine - total), stage_seconds(metrics, seconds))

    def _read_lines(self) -> None:
        file = self._run / "metrics.jsonl"
        if file.is_file() and file.stat().st_size > self._read:
            *complete, _ = file.read_bytes()[self._read :].split(b"\n")
            self._read += sum(len(line) + 1 for line in complete)
            self.lines += [json.loads(line) for line in complete]

    def _last_words(self) -> str:
        return "\n".join(self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-20:])

    def __exit__(self, *_: object) -> None:
        self._tree.go_on()
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(END_WITHIN_S)
            except subprocess.TimeoutExpired:
                self._tree.kill()
                self._process.wait()


def stage_seconds(metrics: Mapping[str, float], seconds: float) -> dict[str, float]:
    """Wall seconds by stage, from a line of `metrics.jsonl` of a step that took `seconds`.

    Where the stop came after the step's own clock had started, it came while weights went out, and counts as that.
    """
    stopped = max(0.0, metrics["time/step"] - seconds)
    return {
        **{stage: metrics[f"time/{stage}"] for stage in ("sample", "decode", "score")},
        "learn": metrics["time/train"] - metrics["time/sync"],
        "sync": max(0.0, metrics["time/sync"] - stopped),
    }
