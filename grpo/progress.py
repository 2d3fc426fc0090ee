"""Progress of a run in the driver's terminal: step, reward, KL, seconds per stage.

Training runs in Ray workers, so rank 0 sends each step's metrics through a Ray queue and a thread here draws them.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from queue import Empty
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from blip3o_grpo.run.hacking import HackingWarning, HackingWatch
from blip3o_grpo.terminal import show

STAGES = ("sample", "decode", "score", "train")


def describe(metrics: Mapping[str, Any]) -> str:
    """One line about a step: `reward 0.412  kl 0.0031  sample 1.2s  decode 3.0s  score 2.1s  train 0.9s`."""
    parts = [f"reward {_number(metrics.get('reward/mean'), '.3f')}"]
    if "kl/reference" in metrics:
        parts.append(f"kl {_number(metrics['kl/reference'], '.4f')}")
    parts += [f"{stage} {_number(metrics.get(f'time/{stage}'), '.1f')}s" for stage in STAGES]
    return "  ".join(parts)


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def print_warning(console: Console, warning: HackingWarning) -> None:
    """One line in the terminal."""
    print_notice(console, f"step {warning.step}: {warning.text}")


def print_notice(console: Console, text: str) -> None:
    """One line in the terminal about something that went wrong and was dealt with."""
    show(console, ("warning:", "bold yellow"), f" {text}")


def training_bar(console: Console, title: str) -> Progress:
    """A bar with steps, the task's description and times; nothing where there is no terminal."""
    columns = (
        TextColumn(title),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console, disable=not console.is_terminal)


class ProgressDisplay:
    """Context manager: a progress bar on a terminal, one line per `every` steps where there is none.

    Args:
        queue: Ray queue that `ProgressReporter` fills; `{"notice": text}` in it is printed as a warning.
        total: steps of the whole run.
        done: steps done before (resume).
        watch: says which steps look like reward hacking; its warnings are printed as they come.
    """

    def __init__(
        self, queue: Any, total: int, done: int, console: Console, every: int = 1, watch: HackingWatch | None = None
    ):
        self.queue, self.total, self.done, self.console, self.every = queue, total, done, console, every
        self.watch = watch
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._draw, daemon=True)

    def __enter__(self) -> ProgressDisplay:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=5)

    def _draw(self) -> None:
        with training_bar(self.console, "training") as progress:
            task = progress.add_task("", total=self.total, completed=self.done)
            while (metrics := self._next()) is not None:
                if "notice" in metrics:
                    print_notice(self.console, metrics["notice"])
                    continue
                line = describe(metrics)
                progress.update(task, completed=metrics["step"], description=line)
                if not self.console.is_terminal and metrics["step"] % self.every == 0:
                    show(self.console, f"step {metrics['step']}/{self.total}  {line}")
                for warning in self.watch.see(metrics) if self.watch else ():
                    print_warning(self.console, warning)

    def _next(self) -> Mapping[str, Any] | None:
        while True:
            try:
                return self.queue.get(timeout=0.5)
            except Empty:
                if self._stop.is_set():
                    return None
