"""What a person sees while a study runs: arm, seed, step and reward of its running trials, and how long the rest takes.

Trials are processes of their own, perhaps on other machines; what they have done is read from their run folders.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.table import Column

from blip3o_grpo.evaluation.statistics import from_metrics
from blip3o_grpo.progress import duration
from blip3o_grpo.run.files import SUMMARY, RunFileError, read_object
from blip3o_grpo.run.metrics import read_metrics
from blip3o_grpo.study.design import Trial
from blip3o_grpo.terminal import is_live, printable, show

POLL_S = 1.0
LINES = 10
"""Lines about the steps of a trial where there is no terminal."""


class StudyProgress:
    """Context manager: bars on a terminal, lines where there is none.

    Args:
        trials: all of the study.
        concurrency: how many run at once.
    """

    def __init__(self, console: Console, trials: Sequence[Trial], concurrency: int):
        self.console, self.concurrency = console, concurrency
        self.trials = {trial.name: trial for trial in trials}
        self.running: dict[str, float] = {}
        """Name to when it started."""
        self.ended = {trial.name for trial in trials if trial.finished}
        self.live, narrow = is_live(console), console.width < 60
        self._bars = Progress(
            TextColumn("{task.description}", markup=False, table_column=Column(overflow="fold", ratio=1)),
            BarColumn(bar_width=6 if narrow else 16),
            MofNCompleteColumn(),
            TextColumn("{task.fields[said]}", markup=False, table_column=Column(overflow="fold", ratio=1)),
            console=console,
            disable=not self.live,
            expand=True,
        )
        self._all = self._bars.add_task("trials", total=len(trials), completed=len(self.ended), said="")
        self._rows: dict[str, TaskID] = {}
        self._shown: dict[str, int] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> StudyProgress:
        self._bars.start()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join(timeout=2 * POLL_S)
        self._bars.stop()

    def start(self, name: str) -> None:
        """A trial has begun."""
        with self._lock:
            self.running[name] = time.monotonic()
            steps = self.trials[name].config.trainer.max_steps
            self._rows[name] = self._bars.add_task(printable(name), total=steps, said="starting")
        number = len(self.ended) + len(self.running)
        show(self.console, f"trial {number} of {len(self.trials)}: ", (name, "bold"))

    def end(self, name: str, failed: bool = False) -> None:
        """A trial is over."""
        with self._lock:
            self.running.pop(name, None)
            self.ended.add(name)
            if name in self._rows:
                self._bars.remove_task(self._rows.pop(name))
            self._bars.update(self._all, completed=len(self.ended), said=self._left())
        rest = ", ".join(filter(None, (f"{len(self.ended)} of {len(self.trials)} trials are done", self._left())))
        if failed:
            show(self.console, ("failed:", "bold red"), f" {name}; the other trials go on ({rest})")
        else:
            show(self.console, f"finished: {name} ({rest})")

    def look(self) -> None:
        """Read what the running trials have done since."""
        with self._lock:
            for name in self.running:
                self._look_at(name)
            self._bars.update(self._all, said=self._left())

    def _look_at(self, name: str) -> None:
        trial = self.trials[name]
        try:
            lines = read_metrics(trial.folder.metrics)
        except RunFileError:  # it is being written anew
            return
        if not lines:
            waiting = "training" if (trial.folder.evaluations / "before.json").is_file() else "starting"
            self._bars.update(self._rows[name], said=waiting)
            return
        step, total = lines[-1]["step"], trial.config.trainer.max_steps
        said = next(filter(None, map(reward_in_words, reversed(lines))), "")  # not every step has new images
        self._bars.update(self._rows[name], completed=step, said=said)
        every = max(1, total // LINES)
        if not self.live and step // every > self._shown.get(name, 0) // every:
            show(self.console, f"{name}: step {step}/{total}  {said}")
        self._shown[name] = step

    def _left(self) -> str:
        """Time left, from how long finished trials took; nothing where none is finished."""
        took = [found for name in self.ended if (found := _seconds(self.trials[name])) is not None]
        open_ = len(self.trials) - len(self.ended)
        if not took or not open_:
            return ""
        spent = sum(time.monotonic() - started for started in self.running.values())
        return f"{duration(max(0.0, float(np.mean(took)) * open_ - spent) / self.concurrency)} left"

    def _watch(self) -> None:
        while not self._stop.wait(POLL_S):
            self.look()


def reward_in_words(metrics: Mapping[str, Any]) -> str:
    """`reward 0.412 (0.350 to 0.474, n=8)`."""
    found = from_metrics(metrics, "reward/mean")
    if found is not None:
        return f"reward {found}"
    mean = metrics.get("reward/mean")
    return "" if mean is None else f"reward {mean:.3f}"


def _seconds(trial: Trial) -> float | None:
    try:
        return read_object(trial.folder.summary, SUMMARY)["seconds"]
    except RunFileError:  # it failed
        return None
