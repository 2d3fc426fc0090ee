"""Evaluations while a run trains; apart from `heldout.py`, which measures without transformers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from transformers import TrainerCallback

from blip3o_grpo.configs import RunConfig
from blip3o_grpo.evaluation.heldout import evaluate, heldout_metrics
from blip3o_grpo.rollout import Prompt, RolloutPipeline
from blip3o_grpo.run.folder import RunFolder


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
