"""Evaluations while a run trains; apart from `heldout.py`, which measures without transformers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from transformers import TrainerCallback

from blip3o_grpo.configs import RunConfig
from blip3o_grpo.evaluation.heldout import Evaluation, evaluate, heldout_metrics
from blip3o_grpo.rollout import Prompt, RolloutPipeline
from blip3o_grpo.run.folder import RunFolder
from blip3o_grpo.run.trackers import Send


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


class GridTracker(TrainerCallback):
    """Sends to the trackers what transformers' callbacks do not: the evaluation before training, and picture grids.

    Args:
        folder: of the run.
        sends: one for each tracker.
    """

    def __init__(self, folder: RunFolder, sends: Sequence[Send]):
        self.folder, self.sends = folder, sends

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The starting policy's scores and pictures, as step 0, unless the run was resumed and they are there."""
        file = self.folder.evaluations / "before.json"
        if state.is_world_process_zero and state.global_step == 0 and file.is_file():
            self._send("before", 0, heldout_metrics(Evaluation.load(file)))

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any], **_: Any) -> None:
        """The pictures of a step that was evaluated; its scores are among its metrics."""
        if state.is_world_process_zero and any(name.startswith("heldout/") for name in logs):
            self._send(f"step-{state.global_step}", state.global_step, {})

    def _send(self, name: str, step: int, metrics: Mapping[str, float]) -> None:
        grid = self.folder.grids / f"{name}.png"
        for send in self.sends:
            send(metrics, grid if grid.is_file() else None, step)
