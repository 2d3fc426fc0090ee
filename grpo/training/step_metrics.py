"""What a step logs beside TRL's own metrics: times, faults, image statistics and rewards that are measured only."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from transformers import TrainerCallback

from blip3o_grpo.configs import RewardSection
from blip3o_grpo.rollout import RolloutBatch, RolloutError
from blip3o_grpo.run.image_signals import image_signals
from blip3o_grpo.training.draws import Draws
from blip3o_grpo.training.selection import completion_rewards, spread

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
            scores = [image[reward.name] for group in all_scores(batch) for image in group]
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


def all_scores(batch: RolloutBatch) -> list[list[dict[str, float | None]]]:
    """Of every group that was drawn the scores of its images, of those too that are not learnt from."""
    learnt = [[rollout.rewards for rollout in group.rollouts] for group in batch.groups]
    return learnt + [list(group.rewards) for group in batch.discarded]


def num_painted(batch: RolloutBatch, per_group: int) -> int:
    """Images of a rank's batch, with those that are not learnt from and those of groups that were dropped.

    Args:
        per_group: images of a group.
    """
    return sum(map(len, all_scores(batch))) + batch.skipped_groups * per_group


def prompt_means(batch: RolloutBatch, rewards: Sequence[RewardSection]) -> list[dict[str, float]]:
    """Of every group, each reward's mean over the images that have it, and as `mean` that of the weighted sum."""
    means = []
    for images in all_scores(batch):
        row = {}
        for reward in rewards:
            known = [score for scores in images if (score := scores[reward.name]) is not None]
            if known:
                row[reward.name] = float(np.mean(known))
        trained = [reward for reward in rewards if reward.weight and reward.name in row]
        if trained:
            row["mean"] = sum(reward.weight * row[reward.name] for reward in trained)
        means.append(row)
    return means


def selection_metrics(draws: Draws, sum_over_ranks: Callable[[Sequence[float]], list[float]]) -> dict[str, float]:
    """Of the groups of all ranks, how many came in the place of others, how many were drawn in vain, and how many were
    drawn for an earlier step."""
    replaced = sum(group.replaced for group in draws.batch.discarded)
    found = sum_over_ranks([replaced, len(draws.batch.discarded) - replaced, len(draws.replayed)])
    return dict(zip(("groups/replaced", "groups/in_vain", "groups/replayed"), found, strict=True))


def drawn_rewards(
    groups: Sequence[Sequence[Mapping[str, float | None]]], rewards: Sequence[RewardSection], each: int
) -> dict[str, float]:
    """TRL's reward metrics of everything that was drawn, where it would count what was chosen to be learnt from.

    Args:
        groups: of all ranks (`all_scores`).
        rewards: of the run.
        each: images of a completion.
    """
    metrics: dict[str, float] = {}
    for reward in rewards:
        known = [score for group in groups for scores in group if (score := scores[reward.name]) is not None]
        if reward.weight and known:
            metrics[f"reward/{reward.name}"] = float(np.mean(known))
            metrics[f"reward/{reward.name}_std"] = float(np.std(known, ddof=1)) if len(known) > 1 else 0.0
    totals = [completion_rewards(group, each, rewards) for group in groups]
    scored = [total for total in totals if not np.isnan(total).any()]
    if scored:
        metrics["reward/mean"] = float(np.concatenate(scored).mean())
        metrics["reward/std"] = float(np.mean([spread(total) for total in scored]))
    return metrics


def totals(history: Sequence[Mapping[str, float]], images: int, seconds: float) -> dict[str, float]:
    """Images painted and seconds spent on steps since the run began; nothing where a version that did not count began.

    Args:
        history: log lines of earlier steps; a resumed run has those of its checkpoint.
        images: of this step.
        seconds: likewise.
    """
    last = next((line for line in reversed(history) if "images/total" in line), None)
    if last is None:
        if any("time/step" in line for line in history):
            return {}
        last = {}
    return {
        "images/total": last.get("images/total", 0) + images,
        "time/total": last.get("time/total", 0.0) + seconds,
    }
