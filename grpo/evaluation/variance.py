"""How much of a reward's spread comes from the tokens, which GRPO can move, and how much from diffusion noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from blip3o_grpo.evaluation.statistics import Estimate, resampled_estimate


@dataclass(frozen=True)
class SpreadShares:
    """Variance components of a reward within a prompt (reward units squared), averaged over prompts."""

    tokens: float
    """Between token sequences, whatever the noise: what a policy can learn."""
    noise: float
    """Between noise draws, whatever the tokens: removed when a group shares its noise."""
    interaction: float
    """Of token sequence and noise together."""
    by_prompt: np.ndarray = field(repr=False, compare=False)
    """`[num_prompts, 3]`: these three of every prompt."""

    def shares(self) -> dict[str, float]:
        """The components as fractions of their sum (all 0 if the reward never varies)."""
        parts = {"tokens": self.tokens, "noise": self.noise, "interaction": self.interaction}
        total = sum(parts.values())
        return {name: value / total if total else 0.0 for name, value in parts.items()}

    def estimates(self) -> dict[str, Estimate]:
        """The same with 95 % intervals, prompts resampled."""

        def share(name: str, rows: np.ndarray) -> float:
            return SpreadShares.of(self.by_prompt[rows]).shares()[name]

        return {name: resampled_estimate(partial(share, name), len(self.by_prompt)) for name in self.shares()}

    @classmethod
    def of(cls, by_prompt: np.ndarray) -> SpreadShares:
        """Averages of components `[num_prompts, 3]`."""
        return cls(*by_prompt.mean(axis=0).tolist(), by_prompt)


def spread_shares(rewards: Sequence[np.ndarray]) -> SpreadShares:
    """Two-way random-effects decomposition without replication (Searle, Variance Components, ch. 4).

    Args:
        rewards: per prompt `[T, N]`, the reward of T token sequences decoded from N noise draws, each at least 2.

    Negative estimates, which small samples can give, count as 0.
    """
    return SpreadShares.of(np.array([_components(np.asarray(table, dtype=np.float64)) for table in rewards]))


def _components(table: np.ndarray) -> tuple[float, float, float]:
    num_tokens, num_noises = table.shape
    rows = table.mean(axis=1, keepdims=True)
    columns = table.mean(axis=0)
    rest = table - rows - columns + table.mean()
    mean_square_rest = (rest**2).sum() / ((num_tokens - 1) * (num_noises - 1))
    tokens = rows.var(ddof=1) - mean_square_rest / num_noises
    noise = columns.var(ddof=1) - mean_square_rest / num_tokens
    return max(tokens, 0.0), max(noise, 0.0), mean_square_rest
