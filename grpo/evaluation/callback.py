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
        tell: what the terminal shows of it (`blip3o_grpo.progress.ProgressDisplay`).
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
        tell: Callable[[dict[str, Any]], None],
    ):
        self.config, self.pipeline, self.prompts, self.folder = config, pipeline, prompts, folder
        self.sync_weights, self.add_metrics, self.tell = sync_weights, add_metrics, tell

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        step, config = state.global_step, self.config
        if step % config.evaluation.every_steps or step == config.trainer.max_steps:
            return
        self.sync_weights()
        if state.is_world_process_zero:
            total = min(len(self.prompts), config.evaluation.num_prompts)

            def progress(done: int) -> None:
                self.tell({"evaluating": step, "done": done, "of": total})

            progress(0)
            name = f"step-{step}"
            evaluation = evaluate(
                self.pipeline, self.prompts, config, name=name, step=step, folder=self.folder, progress=progress
            )
            self.add_metrics(heldout_metrics(evaluation))
            self.tell({"evaluation": evaluation})
