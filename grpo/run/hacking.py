"""Signs that a policy pleases its rewards at the cost of the rest: limits on what a run logs anyway.

A warning stops nothing. It is found in `metrics.jsonl` and the evaluations alone, so the terminal and the report say
the same. A signal warns once, at the first step whose window of steps is beyond its limit.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from blip3o_grpo.configs import RewardSection, WarningsSection
from blip3o_grpo.rewards import declared
from blip3o_grpo.run.image_signals import IMAGE_SIGNALS

KL = "kl/reference"
NOISE = 3.0
"""A change is one only if it is so many times its standard error: steps see different prompts, so their means vary."""


@dataclass(frozen=True)
class HackingWarning:
    """One signal beyond its limit."""

    step: int
    signal: str
    """Metric name."""
    text: str


class Change(Protocol):
    """A mean over prompts with its interval."""

    @property
    def mean(self) -> float: ...

    def interval_and_n(self, form: str) -> str:
        """In words."""
        ...


class HackingWatch:
    """Sees a run's metrics step by step.

    Args:
        limits: the run's `warnings` section.
        rewards: the run's rewards; those not trained on, and reference guards, should not fall.
    """

    def __init__(self, limits: WarningsSection, rewards: Sequence[RewardSection]):
        self.limits = limits
        self.kept = [f"reward/{reward.name}" for reward in rewards if should_keep(reward)]
        self._windows: dict[str, deque[float]] = {}
        self._first: dict[str, list[float]] = {}
        self._warned: set[str] = set()

    def see(self, line: Mapping[str, Any]) -> list[HackingWarning]:
        """New warnings of this step; lines must come in the order of their steps."""
        found = [
            HackingWarning(line["step"], name, text)
            for name in (KL, *IMAGE_SIGNALS, *self.kept)
            if line.get(name) is not None and (text := self._judge(name, line[name])) and name not in self._warned
        ]
        self._warned.update(warning.signal for warning in found)
        return found

    def _judge(self, name: str, value: float) -> str | None:
        """What is wrong with a signal whose newest value is this one."""
        window = self._windows.setdefault(name, deque(maxlen=self.limits.window_steps))
        window.append(value)
        if len(window) < self.limits.window_steps:
            return None
        now = float(np.mean(window))
        earlier = self._first.setdefault(name, list(window))
        first = float(np.mean(earlier))
        if name == KL:
            return _kl(now, self.limits.kl_budget)
        if abs(now - first) <= NOISE * np.sqrt((np.var(earlier) + np.var(window)) / len(window)):
            return None
        if name in IMAGE_SIGNALS:
            return _change(name, first, now, self.limits.image_change)
        return _drop(name, first, now, self.limits.reward_drop)


def find_warnings(
    limits: WarningsSection, rewards: Sequence[RewardSection], metrics: Iterable[Mapping[str, Any]]
) -> list[HackingWarning]:
    """All warnings of a run's `metrics.jsonl`."""
    watch = HackingWatch(limits, rewards)
    return [warning for line in metrics for warning in watch.see(line)]


def heldout_warnings(
    limits: WarningsSection,
    rewards: Sequence[RewardSection],
    before: Mapping[str, float],
    changes: Mapping[str, Change],
    step: int,
) -> list[HackingWarning]:
    """Held-out rewards that should not fall and did.

    Args:
        before: means of the starting policy.
        changes: what `paired_changes` found.
    """
    warnings = []
    for reward in rewards:
        name = reward.name
        if not should_keep(reward) or name not in before or name not in changes:
            continue
        change = changes[name]
        text = _drop(f"heldout/{name}", before[name], before[name] + change.mean, limits.reward_drop)
        if text:
            warnings.append(HackingWarning(step, f"heldout/{name}", f"{text} (change {change.interval_and_n('+.3f')})"))
    return warnings


def should_keep(reward: RewardSection) -> bool:
    """Whether a fall of this reward is suspicious: nothing trains on it, or it guards the look of the images."""
    if reward.guard is None and ":" not in reward.target:  # a user's file is not run for a report
        return not reward.weight or declared(reward.target).is_guard
    return not reward.weight or bool(reward.guard)


def _kl(now: float, budget: float | None) -> str | None:
    if budget is None or now <= budget:
        return None
    return f"{KL} is {now:.3f} nats per token, above warnings.kl_budget={budget:g}: far from the starting policy"


def _change(name: str, first: float, now: float, limit: float | None) -> str | None:
    if limit is None or first <= 0 or abs(now / first - 1) <= limit:
        return None
    return (
        f"{name} went from {first:.3f} to {now:.3f} ({now / first - 1:+.0%}), more than "
        f"warnings.image_change={limit:g}: the images look different ({IMAGE_SIGNALS[name]})"
    )


def _drop(name: str, first: float, now: float, limit: float | None) -> str | None:
    if limit is None or first - now <= limit:
        return None
    return (
        f"{name} fell from {first:.3f} to {now:.3f}, by more than warnings.reward_drop={limit:g}: "
        "the trained rewards may be bought with it"
    )
