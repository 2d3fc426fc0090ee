"""Which checkpoints stay: the newest, and the best by one measure that is the same for all of a run.

With `evaluation.every_steps` the measure is the held-out reward, and only checkpoints of evaluated steps compete:
scores of other steps would compare luck with skill. Without, it is the mean training reward of the steps since the last
checkpoint; one step's mean alone would choose lucky prompts. Rewards count with their weights; where there is gold
(`guards.gold`), the gold rewards alone count, all alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from blip3o_grpo.configs import RunConfig


def checkpoint_score(history: Sequence[Mapping[str, Any]], config: RunConfig, step: int) -> float | None:
    """Score of the checkpoint after `step`, from the logged metrics so far; None: it does not compete."""
    if config.evaluation.every_steps:
        return heldout_score(history, config, step)
    recent = [line for line in history if step - config.checkpoint.every_steps < line["step"] <= step]
    rewards = [line["reward/mean"] for line in recent if _is_number(line.get("reward/mean"))]
    return sum(rewards) / len(rewards) if rewards else None


def heldout_score(history: Sequence[Mapping[str, Any]], config: RunConfig, step: int) -> float | None:
    """Weighted sum of the held-out rewards measured at this very step; of gold rewards their mean."""
    gold = config.guards.gold
    weights = {f"heldout/{reward.name}": reward.weight for reward in config.rewards if reward.weight}
    if gold:
        weights = {f"heldout/{name}": 1 / len(gold) for name in gold}
    for line in history:
        if line["step"] == step and any(name in line for name in weights):
            return sum(weight * line.get(name, 0.0) for name, weight in weights.items())
    return None


def superfluous(scores: Mapping[int, float | None], keep: int, keep_best: int) -> list[int]:
    """Steps of the checkpoints to delete, from all steps and their scores; of equal scores the newer counts more."""
    newest = sorted(scores)[-keep:]
    scored = [(score, step) for step, score in scores.items() if score is not None]
    best = [step for _, step in sorted(scored, reverse=True)[:keep_best]]
    return sorted(set(scores) - {*newest, *best})


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and value == value
