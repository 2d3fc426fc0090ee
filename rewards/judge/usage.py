"""What a judge's answers took: requests, tokens, money, and what the cache saved."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

_MOST = 2**53
"""No request has so many tokens; beyond it floats are not exact."""


@dataclass(frozen=True)
class Usage:
    """Of any number of answers."""

    answers: int = 0
    cached: int = 0
    """Answers that came from the cache."""
    calls: int = 0
    """Requests that the server answered; more than answers where some had to be asked again."""
    tokens_in: int = 0
    """Of questions and images, as the server counts them."""
    tokens_out: int = 0
    """Of answers."""
    uncounted: int = 0
    """Requests whose tokens the server did not tell."""
    cost: float | None = None
    """Of the tokens that were told; None: the judge has no price."""

    def __add__(self, other: Usage) -> Usage:
        costs = [cost for cost in (self.cost, other.cost) if cost is not None]
        return Usage(
            self.answers + other.answers,
            self.cached + other.cached,
            self.calls + other.calls,
            self.tokens_in + other.tokens_in,
            self.tokens_out + other.tokens_out,
            self.uncounted + other.uncounted,
            sum(costs) if costs else None,
        )

    def words(self) -> str:
        """In one line for people."""
        parts = [f"{self.answers} answers, {self.cached} of them from the cache, {self.calls} calls"]
        parts.append(f"{self.tokens_in} tokens in, {self.tokens_out} out")
        if self.uncounted:
            parts.append(f"tokens of {self.uncounted} calls not told")
        parts.append("price not given" if self.cost is None else f"cost {self.cost:.4f}")
        return "; ".join(parts)


def total(usages: Iterable[Usage]) -> Usage:
    """Of all together."""
    return sum(usages, Usage())


def count_tokens(told: Any, price_in: float | None, price_out: float | None) -> Usage:
    """One request, from the `usage` of its answer.

    Args:
        told: `{"prompt_tokens": ..., "completion_tokens": ...}`, or anything else: not told.
        price_in: of a million tokens of questions.
        price_out: of a million tokens of answers.
    """
    told = told if isinstance(told, Mapping) else {}
    counts = [told.get("prompt_tokens"), told.get("completion_tokens")]
    if any(isinstance(count, bool) or not isinstance(count, int) or not 0 <= count < _MOST for count in counts):
        return Usage(calls=1, uncounted=1)
    priced = price_in is not None or price_out is not None
    cost = (counts[0] * (price_in or 0) + counts[1] * (price_out or 0)) / 1e6
    return Usage(calls=1, tokens_in=counts[0], tokens_out=counts[1], cost=cost if priced else None)
