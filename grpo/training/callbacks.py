"""What rank 0 does with a step's numbers: write them, send them to the terminal, evaluate, and stop when asked to.

Apart from `run/metrics.py`, `progress.py` and `evaluation/heldout.py`, which read and show the same numbers without
transformers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from blip3o_grpo.configs import RunConfig
from blip3o_grpo.evaluation.heldout import evaluate, heldout_metrics
from blip3o_grpo.rollout import Prompt, RolloutPipeline
from blip3o_grpo.run.folder import RunFolder
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


class HeldoutCallback(TrainerCallback):
    """Evaluates every so many steps on rank 0, under the weights the step just made.

    Args:
        config: the run.
        pipeline: draws and scores the held-out images.
        prompts: held-out prompts.
        folder: where evaluations and grids go.
        sync_weights: gives the pipeline the weights that evaluations measure; every rank calls it.
        add_metrics: logs the means with the step.
    """

    def __init__(
        self,
        config: RunConfig,
        pipeline: RolloutPipeline,
        prompts: Sequence[Prompt],
        folder: RunFolder,
        *,
        sync_weights: Callable[[], None],
        add_metrics: Callable[[dict[str, float]], None],
    ):
        self.config, self.pipeline, self.prompts, self.folder = config, pipeline, prompts, folder
        self.sync_weights, self.add_metrics = sync_weights, add_metrics

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        step, config = state.global_step, self.config
        if step % config.evaluation.every_steps or step == config.trainer.max_steps:
            return
        self.sync_weights()
        if state.is_world_process_zero:
            evaluation = evaluate(
                self.pipeline, self.prompts, config, name=f"step-{step}", step=step, folder=self.folder
            )
            self.add_metrics(dict(heldout_metrics(evaluation)))


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
