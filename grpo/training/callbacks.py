"""What rank 0 does with a step's numbers: write them, send them to the terminal, evaluate on held-out prompts.

Apart from `run/metrics.py`, `progress.py` and `evaluation/heldout.py`, which read and show the same numbers without
transformers.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from blip3o_grpo.configs.atomic import storage_errors, write_atomically
from blip3o_grpo.evaluation.heldout import evaluate, heldout_metrics
from blip3o_grpo.rollout import Prompt
from blip3o_grpo.run.folder import RunFolder
from blip3o_grpo.run.metrics import finite, read_metrics

if TYPE_CHECKING:
    from blip3o_grpo.training.trainer import ImageGRPOTrainer


class MetricsFile(TrainerCallback):
    """Appends one JSON object per logged step; rank 0 only."""

    def __init__(self, path: Path):
        self.path = path

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Forget the steps after the checkpoint that the run resumes from: they will be repeated."""
        if state.is_world_process_zero:
            kept = [line for line in read_metrics(self.path) if line["step"] <= state.global_step]
            write_atomically(self.path, "".join(json.dumps(line) + "\n" for line in kept))

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any], **_: Any) -> None:
        if state.is_world_process_zero and "reward/mean" in logs:
            line = json.dumps({"step": state.global_step, **finite(logs)})
            with storage_errors(self.path), self.path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
                file.flush()
                os.fsync(file.fileno())  # before the checkpoint of this step, which promises that the line is there


class ProgressReporter(TrainerCallback):
    """Sends logged metrics from rank 0 to the driver."""

    def __init__(self, queue: Any):
        self.queue = queue

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any], **_: Any) -> None:
        if state.is_world_process_zero and "reward/mean" in logs:
            self.queue.put({"step": state.global_step, **logs})


class HeldoutCallback(TrainerCallback):
    """Evaluates every so many steps on rank 0, under the weights the step just made."""

    def __init__(self, trainer: ImageGRPOTrainer, prompts: Sequence[Prompt], folder: RunFolder):
        self.trainer, self.prompts, self.folder = trainer, prompts, folder

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        step, config = state.global_step, self.trainer.run
        if step % config.evaluation.every_steps or step == config.trainer.max_steps:
            return
        self.trainer.sync_evaluated_weights()
        if state.is_world_process_zero:
            evaluation = evaluate(
                self.trainer.pipeline, self.prompts, config, name=f"step-{step}", step=step, folder=self.folder
            )
            self.trainer.add_metrics(dict(heldout_metrics(evaluation)))
