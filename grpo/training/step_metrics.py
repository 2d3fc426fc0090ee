"""What a step logs beside TRL's own metrics: times, faults, image statistics and rewards that are measured only."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from transformers import TrainerCallback

from blip3o_grpo.configs import RewardSection
from blip3o_grpo.rollout import RolloutBatch, RolloutError
from blip3o_grpo.run.image_signals import image_signals

STAGES = ("sample", "decode", "score")
FAULTS = ("retries", "restarts", "timeouts")


class StepClock(TrainerCallback):
    """Wall seconds of the last optimiser step; `sync` and `rollout`, the parts of it in which weights go out and
    rollouts come in, are set by the trainer. Further steps on the same batch spend none.
    """

    def __init__(self) -> None:
        self.started = 0.0
        self.step = 0.0
        self.sync = 0.0
        self.rollout = 0.0

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self.started, self.sync, self.rollout = time.perf_counter(), 0.0, 0.0

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.step = time.perf_counter() - self.started

    def metrics(self) -> dict[str, float]:
        """The step's seconds, in rollouts and outside them; `time/sync` is a part of `time/train`."""
        return {
            "time/sync": self.sync,
            "time/rollout": self.rollout,
            "time/train": self.step - self.rollout,
            "time/step": self.step,
        }


def batch_metrics(
    batch: RolloutBatch,
    step: int,
    rewards: Sequence[RewardSection],
    sum_over_ranks: Callable[[Sequence[float]], list[float]],
) -> dict[str, float]:
    """Metrics of the rollouts of all ranks.

    Args:
        batch: this rank's rollouts.
        step: of the rollouts; for the error.
        rewards: the run's; those without weight are measured here, the others are logged by TRL.
        sum_over_ranks: sums each value over the ranks; all ranks must call `batch_metrics`.

    Raises:
        RolloutError: no rank has a rollout.
    """
    rollouts = [rollout for group in batch.groups for rollout in group.rollouts]
    signals = image_signals(batch.groups)
    names = [*STAGES, *(f"score/{reward.name}" for reward in rewards)]
    stages = [batch.seconds.get(name, 0.0) for name in names]
    faults = [batch.faults.get(fault, 0) for fault in FAULTS]
    totals = sum_over_ranks([*stages, *faults, batch.skipped_groups, len(rollouts), *signals.values()])
    seconds, faults = totals[: len(names)], totals[len(names) :][: len(FAULTS)]
    skipped, num_images, *signal_sums = totals[len(names) + len(FAULTS) :]
    if not num_images:
        raise RolloutError(f"step {step}: every group was dropped because a reward failed on it")
    metrics = {f"time/{name}": value for name, value in zip(names, seconds, strict=True)}
    metrics |= {f"faults/{fault}": count for fault, count in zip(FAULTS, faults, strict=True)}
    metrics["groups/dropped"] = skipped
    metrics |= {name: total / num_images for name, total in zip(signals, signal_sums, strict=True)}
    for reward in rewards:
        if not reward.weight:
            scores = [rollout.rewards[reward.name] for rollout in rollouts]
            metrics |= _measured(reward.name, scores, sum_over_ranks)
    return metrics


def _measured(
    name: str, scores: Sequence[float | None], sum_over_ranks: Callable[[Sequence[float]], list[float]]
) -> dict[str, float]:
    """Mean and spread of a reward over all ranks; nothing if it applies to no image."""
    known = np.array([score for score in scores if score is not None], dtype=np.float64)
    total, squares, count = sum_over_ranks([known.sum(), (known**2).sum(), len(known)])
    if not count:
        return {}
    variance = max(squares / count - (total / count) ** 2, 0.0) * count / max(count - 1, 1)  # as TRL: unbiased
    return {f"reward/{name}": total / count, f"reward/{name}_std": variance**0.5}


def prompt_means(batch: RolloutBatch, rewards: Sequence[RewardSection]) -> list[dict[str, float]]:
    """Of every group, each reward's mean over the images that have it, and as `mean` that of the weighted sum."""
    means = []
    for group in batch.groups:
        row = {}
        for reward in rewards:
            known = [score for r in group.rollouts if (score := r.rewards[reward.name]) is not None]
            if known:
                row[reward.name] = float(np.mean(known))
        trained = [reward for reward in rewards if reward.weight and reward.name in row]
        if trained:
            row["mean"] = sum(reward.weight * row[reward.name] for reward in trained)
        means.append(row)
    return means
