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
    """Appends one JSON object per optimiser step to `metrics.jsonl`; rank 0 only."""

    def __init__(self, path: Path):
        self.path = path

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Forget the steps after the checkpoint that the run resumes from: they will be repeated."""
        if state.is_world_process_zero:
            forget_later(self.path, state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any], **_: Any) -> None:
        if state.is_world_process_zero and "loss" in logs:  # not so at the end of a run
            append_metrics(self.path, state.global_step, logs)


class ProgressReporter(TrainerCallback):
    """Sends logged metrics from rank 0 to the driver."""

    def __init__(self, queue: Any):
        self.queue = queue

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any], **_: Any) -> None:
        if state.is_world_process_zero and "loss" in logs:
            self.queue.put({"step": state.global_step, **logs})


class StopAfterBatch(TrainerCallback):
    """Ends the training after the last step on the current batch, with a checkpoint, once a stop is asked for.

    A checkpoint holds no rollouts, so in the middle of a batch the steps that are left would be others.

    Args:
        num_iterations: optimiser steps on a batch.
        agreed: whether any rank has seen the request; all ranks ask it after every batch.
    """

    def __init__(self, num_iterations: int, agreed: Callable[[], bool]):
        self.num_iterations, self.agreed = num_iterations, agreed

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step % self.num_iterations == 0 and self.agreed():
            control.should_save = control.should_training_stop = True
