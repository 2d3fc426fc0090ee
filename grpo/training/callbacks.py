"""What rank 0 does with a step's numbers: write them, send them to the terminal, and stop when asked to.

Apart from `run/metrics.py` and `progress.py`, which read and show the same numbers without transformers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from blip3o_grpo.run.metrics import append_metrics, forget_later


class MetricsFile(TrainerCallback):
    """Appends one JSON object per logged step to `metrics.jsonl`; rank 0 only."""

    def __init__(self, path: Path):
        self.path = path

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Forget the steps after the checkpoint that the run resumes from: they will be repeated."""
        if state.is_world_process_zero:
            forget_later(self.path, state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any], **_: Any) -> None:
        if state.is_world_process_zero and "reward/mean" in logs:
            append_metrics(self.path, state.global_step, logs)


class ProgressReporter(TrainerCallback):
    """Sends logged metrics from rank 0 to the driver."""

    def __init__(self, queue: Any):
        self.queue = queue

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any], **_: Any) -> None:
        if state.is_world_process_zero and "reward/mean" in logs:
            self.queue.put({"step": state.global_step, **logs})


class StopAfterStep(TrainerCallback):
    """Ends the training after the current step, with a checkpoint, once a stop is asked for.

    Args:
        agreed: whether any rank has seen the request; all ranks ask it after every step.
    """

    def __init__(self, agreed: Callable[[], bool]):
        self.agreed = agreed

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.agreed():
            control.should_save = control.should_training_stop = True
