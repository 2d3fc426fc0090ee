"""What a reading suite found of one policy, or of two: numbers with intervals by item, and paired differences. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from blip3o_grpo.evaluation.benchmark_result import Subset
from blip3o_grpo.evaluation.statistics import Estimate, estimate
from blip3o_grpo.rewards.benchmarks import ALL, pooled_column
from blip3o_grpo.rewards.suites import Measure

Found = Mapping[str, Mapping[str, tuple[float, float]]]
"""Measure to item id to its part and its whole."""


@dataclass(frozen=True)
class ReadingReport:
    """A policy on a reading suite, and another on the same items, if there is one."""

    suite: str
    policies: tuple[str, ...]
    """As the user named them; the second is a run's starting policy where no other was named."""
    data: dict[str, Any]
    """`file`, `digest` (SHA-256), `items` in it."""
    subset: Subset | None
    """None: all items of the data."""
    values: tuple[dict[str, dict[str, float]], ...]
    """Of each policy, measure to item id to what the item contributes to the measure, their mean."""
    notes: tuple[str, ...]

    def estimates(self, index: int) -> dict[str, Estimate]:
        """Every measure of a policy with its interval by item."""
        return {name: estimate(list(values.values())) for name, values in self.values[index].items()}

    def differences(self) -> dict[str, Estimate]:
        """First minus second, paired by item, of the measures that both have; empty where there is one policy."""
        if len(self.values) < 2:
            return {}
        first, second = self.values
        return {
            name: estimate([value - second[name][item] for item, value in values.items()], paired=True)
            for name, values in first.items()
            if name in second
        }

    def to_dict(self, measures: Sequence[Measure]) -> dict[str, Any]:
        """Ready for JSON."""
        sides = [
            {
                "policy": policy,
                "estimates": {name: asdict(found) for name, found in self._with_more(index, measures).items()},
                "values": self.values[index],
            }
            for index, policy in enumerate(self.policies)
        ]
        about = {
            "suite": self.suite,
            "data": self.data,
            "subset": asdict(self.subset) if self.subset else None,
            "notes": list(self.notes),
        }
        if len(sides) == 1:
            return {**about, **sides[0]}
        differences = {name: asdict(found) for name, found in self.differences().items()}
        return {**about, **sides[0], "compare": sides[1], "difference": differences}

    def _with_more(self, index: int, measures: Sequence[Measure]) -> dict[str, Estimate]:
        found = self.estimates(index)
        for measure in measures:
            if measure.also and measure.name in found:
                title, grows = measure.also
                found[title] = transformed(found[measure.name], grows)
        return found


def contributions(found: Found) -> dict[str, dict[str, float]]:
    """What every item contributes to each measure: their mean is the sum of parts by the sum of wholes."""
    return {name: dict(pooled_column(name, name, parts).strata[ALL]) for name, parts in found.items()}


def transformed(found: Estimate, grows: Callable[[float], float]) -> Estimate:
    """The estimate of a number that grows with another one."""
    low, high = (None if end is None else grows(end) for end in (found.low, found.high))
    return Estimate(grows(found.mean), low, high, found.n)
