"""Held-out evaluation: the same prompts, seeds and noise every time, so two evaluations differ only by the policy.

Rollouts use the step name "eval" for their seeds. A reward's value is the mean over prompts of the mean over a prompt's
images; its interval comes from resampling prompts, because images of one prompt are not independent.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from transformers import TrainerCallback

from configs import RunConfig
from grpo.checkpoints import RunFolder, write_atomically
from grpo.grids import save_grid
from rollout import Prompt, RolloutGroup

if TYPE_CHECKING:
    from grpo.trainer import ImageGRPOTrainer
    from rollout import RolloutPipeline

NUM_RESAMPLES = 2000


@dataclass(frozen=True)
class Evaluation:
    """Held-out result of one policy."""

    step: int
    num_prompts: int
    images_per_prompt: int
    means: dict[str, float]
    """Reward name to mean over the prompts it applies to (a reward that applies to none is left out)."""
    intervals: dict[str, tuple[float, float]]
    """95 % bootstrap interval of each mean, resampling prompts."""
    per_prompt: dict[str, dict[str, float | None]]
    """Prompt id to reward name to mean over that prompt's images."""

    def save(self, path: Path) -> None:
        """Write as JSON, whole or not at all."""
        write_atomically(path, json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> Evaluation:
        """Read what `save` wrote."""
        return cls(**json.loads(path.read_text(encoding="utf-8")))


def bootstrap_interval(values: Sequence[float], seed: int = 0) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the mean of `values` (one per prompt); deterministic."""
    data = np.asarray(values, dtype=np.float64)
    draws = np.random.default_rng(seed).integers(len(data), size=(NUM_RESAMPLES, len(data)))
    low, high = np.percentile(data[draws].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)


def summarise(groups: Sequence[RolloutGroup], reward_names: Sequence[str], step: int) -> Evaluation:
    """Means and intervals of scored groups."""
    per_prompt = {
        group.prompt.id: {name: _mean(rollout.rewards[name] for rollout in group.rollouts) for name in reward_names}
        for group in groups
    }
    columns = {name: [row[name] for row in per_prompt.values() if row[name] is not None] for name in reward_names}
    columns = {name: values for name, values in columns.items() if values}
    return Evaluation(
        step=step,
        num_prompts=len(groups),
        images_per_prompt=len(groups[0].rollouts),
        means={name: float(np.mean(values)) for name, values in columns.items()},
        intervals={name: bootstrap_interval(values) for name, values in columns.items()},
        per_prompt=per_prompt,
    )


def _mean(scores: Any) -> float | None:
    known = [score for score in scores if score is not None]
    return float(np.mean(known)) if known else None


def collect_heldout(
    pipeline: RolloutPipeline, prompts: Sequence[Prompt], config: RunConfig
) -> tuple[RolloutGroup, ...]:
    """The held-out groups under the weights the pipeline has now."""
    section = config.evaluation
    batch = pipeline.collect(
        list(prompts[: section.num_prompts]),
        step="eval",
        group_size=section.images_per_prompt,
        num_diffusion_steps=section.num_diffusion_steps,
    )
    return batch.groups


def evaluate(
    pipeline: RolloutPipeline,
    prompts: Sequence[Prompt],
    config: RunConfig,
    *,
    name: str,
    step: int,
    folder: RunFolder,
) -> Evaluation:
    """Evaluate the pipeline's weights and save `evaluations/NAME.json` and `grids/NAME.png`."""
    groups = collect_heldout(pipeline, prompts, config)
    evaluation = summarise(groups, [reward.name for reward in config.rewards], step)
    save_grid(folder.grids / f"{name}.png", groups[: config.evaluation.grid_prompts])
    evaluation.save(folder.evaluations / f"{name}.json")
    return evaluation


def heldout_metrics(evaluation: Evaluation) -> Mapping[str, float]:
    """Metric names of an evaluation's means."""
    return {f"heldout/{name}": value for name, value in evaluation.means.items()}


class HeldoutCallback(TrainerCallback):
    """Evaluates every so many steps on rank 0, under the weights the step just made."""

    def __init__(self, trainer: ImageGRPOTrainer, prompts: Sequence[Prompt], folder: RunFolder):
        self.trainer, self.prompts, self.folder = trainer, prompts, folder

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        step, config = state.global_step, self.trainer.run
        if step % config.evaluation.every_steps or step == config.trainer.max_steps:
            return
        self.trainer.sync_weights()
        if state.is_world_process_zero:
            evaluation = evaluate(
                self.trainer.pipeline, self.prompts, config, name=f"step-{step}", step=step, folder=self.folder
            )
            self.trainer.add_metrics(dict(heldout_metrics(evaluation)))
