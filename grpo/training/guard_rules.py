"""When training has gone wrong: pure functions over a run's logged metrics, so a resumed run decides as it would have.

What follows from a decision, and the evidence, is `blip3o_grpo.training.guards`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from blip3o_grpo.configs.guards import GuardsSection

SKIPPED = "guards/skipped"
"""Metric of every step: 1 if its gradient was thrown away."""
HEAD_SKIPPED = "head/skipped"
"""The same of the diffusion head's own update."""


class GuardError(ValueError):
    """A guard stopped the run."""


def non_finite(loss: float, gradient_norm: float) -> str | None:
    """What is not a finite number, in words, or None."""
    for name, value in (("loss", loss), ("gradient norm", gradient_norm)):
        if not math.isfinite(value):
            return f"the {name} is {value}"
    return None


def too_many_skips(history: Sequence[Mapping[str, Any]], max_skips: int, metric: str = SKIPPED) -> bool:
    """Whether one more skipped step after those of `history` exceeds the bound."""
    in_a_row = 0
    for line in reversed([line for line in history if metric in line]):
        if not line[metric]:
            break
        in_a_row += 1
    return in_a_row >= max_skips


def reward_collapse(rewards: Sequence[float], window: int, share: float) -> str | None:
    """Whether the last mean over `window` steps fell under `share` of the best one, in words, or None."""
    if len(rewards) < 2 * window:
        return None
    totals = [0.0, *itertools.accumulate(rewards)]
    means = [(totals[end] - totals[end - window]) / window for end in range(window, len(totals))]
    best = max(means)
    if best <= 0 or means[-1] >= share * best:
        return None
    return f"the mean reward of the last {window} steps is {means[-1]:.3g}, under {share:g} of the best, {best:.3g}"


def no_spread(shares: Sequence[float], window: int) -> str | None:
    """Whether no group had any spread for `window` steps, in words, or None.

    Args:
        shares: share of the groups without spread, of every step.
        window: steps.
    """
    if len(shares) < window or any(share < 1 for share in shares[-window:]):
        return None
    return f"all groups were without spread for {window} steps: their members score the same, so nothing is learnt"


def unhealthy(history: Sequence[Mapping[str, Any]], guards: GuardsSection) -> str | None:
    """What the metrics so far say against going on, and the key that lets the run go on, or None."""
    lines = [line for line in history if isinstance(line.get("reward/mean"), int | float)]
    rewards = [line["reward/mean"] for line in lines if math.isfinite(line["reward/mean"])]
    if guards.reward_collapse == "stop":
        reason = reward_collapse(rewards, guards.window_steps, guards.reward_share)
        if reason:
            return f"{reason} (guards.reward_collapse)"
    if guards.no_spread == "stop":
        shares = [line["groups/without_spread"] for line in lines if "groups/without_spread" in line]
        reason = no_spread(shares, guards.window_steps)
        if reason:
            return f"{reason} (guards.no_spread)"
    return None
