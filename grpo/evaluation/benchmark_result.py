"""What a benchmark measured, with everything that decides whether two results may be compared.

Pure: read, compared and written without a model or a judge.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, TypeAdapter

from blip3o_grpo.configs import ConfigError
from blip3o_grpo.evaluation.statistics import Estimate, clip, estimate
from blip3o_grpo.rewards.benchmarks import Column
from blip3o_grpo.rewards.judge.options import judge_name
from blip3o_grpo.rewards.judge.usage import Usage
from blip3o_grpo.run.files import read_object

Item = TypeVar("Item")
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Subset:
    """A seeded draw from a benchmark's prompts."""

    limit: int
    seed: int


@dataclass(frozen=True)
class BenchmarkResult:
    """One policy on one benchmark, judged by one judge."""

    suite: str
    policy: str
    """As the user named it."""
    judge: dict[str, str]
    """`model`, `version` and, where it was told more, `extra`: a judge's `identity`."""
    data: dict[str, Any]
    """`file`, `digest` (SHA-256), `prompts` in it, `official` number of prompts."""
    protocol: dict[str, Any]
    """Options of the suite that decide what a score is."""
    subset: Subset | None
    """None: all prompts of the data."""
    images_per_prompt: int
    prompts: list[str]
    """Ids of what was measured."""
    columns: list[Column]
    """Shares of 1, the overall score last."""
    usage: Usage
    notes: list[str]

    def estimates(self) -> dict[str, Estimate]:
        """Every column's number with its interval by prompt."""
        return {column.name: column_estimate(column) for column in self.columns}

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON, and to be read again by `load_result`."""
        return {**asdict(self), "estimates": {name: asdict(found) for name, found in self.estimates().items()}}


@dataclass(frozen=True)
class BenchmarkReport:
    """A policy's result, and how it differs from another's, if that was asked for."""

    results: tuple[BenchmarkResult, ...]
    """One, or two."""
    difference: dict[str, Estimate] | None
    """Column to first minus second, paired by prompt."""

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON: the first result, and `compare` and `difference` where there is a second."""
        values = self.results[0].to_dict()
        if self.difference is not None:
            values["compare"] = self.results[1].to_dict()
            values["difference"] = {name: asdict(found) for name, found in self.difference.items()}
        return values


def _complete(result: BenchmarkResult) -> BenchmarkResult:
    for key in ("model", "version"):
        if key not in result.judge:
            raise ValueError(f"'judge' lacks {key!r}")
    for key in ("file", "digest", "prompts", "official"):
        if key not in result.data:
            raise ValueError(f"'data' lacks {key!r}")
    if result.images_per_prompt < 1:
        raise ValueError(f"'images_per_prompt' is {result.images_per_prompt}; it must be at least 1")
    if twice := _repeated(result.prompts):
        raise ValueError(f"'prompts' holds {twice!r} twice")
    if not result.columns:
        raise ValueError("'columns' is empty")
    if twice := _repeated([column.name for column in result.columns]):
        raise ValueError(f"'columns' holds {twice!r} twice")
    prompts = set(result.prompts)
    for column in result.columns:
        _check_column(column, prompts)
    return result


def _repeated(names: Sequence[str]) -> str | None:
    return next((name for name, count in Counter(names).items() if count > 1), None)


def _check_column(column: Column, prompts: Collection[str]) -> None:
    """Refuse what no measurement gives; raises ValueError."""
    if set(column.strata) != set(column.weights) or not all(column.strata.values()):
        raise ValueError(f"'columns' has {column.name!r} with strata that are empty or have no weight")
    for values in column.strata.values():
        if other := next((prompt for prompt in values if prompt not in prompts), None):
            raise ValueError(f"'columns' has {column.name!r} with a value of {other!r}, which 'prompts' does not hold")
        for prompt, value in values.items():
            if column.of_shares and not -_ROUNDING <= value <= 1 + _ROUNDING:
                raise ValueError(f"'columns' has {column.name!r} with {value:g} of {prompt!r}; it must be 0 to 1")
    if not -_ROUNDING <= column.value <= 1 + _ROUNDING:
        raise ValueError(f"'columns' has {column.name!r}, which comes to {column.value:g}; it must be 0 to 1")


RESULT = TypeAdapter(Annotated[BenchmarkResult, AfterValidator(_complete)])


def load_result(path: Path) -> BenchmarkResult:
    """Read what `eval --json` printed for a benchmark.

    Raises:
        RunFileError: the file is no such result.
    """
    return RESULT.validate_python(read_object(path, RESULT))


def column_estimate(column: Column, *, paired: bool = False) -> Estimate:
    """A column's number with its 95 % interval by prompt; `paired`: its values are differences of two results."""
    factors = {name: column.weights[name] * len(column.strata) for name in column.strata}
    found = estimate(
        *([factors[name] * value for value in values.values()] for name, values in column.strata.items()),
        paired=paired,
    )
    if found.low is None or found.high is None:
        return found
    low, high = clip(found.low, found.high, (-1.0, 1.0) if paired else (0.0, 1.0))  # all columns are shares
    return replace(found, low=low, high=high)


def compare(first: BenchmarkResult, second: BenchmarkResult) -> dict[str, Estimate]:
    """First minus second, column by column, paired by prompt.

    Raises:
        ConfigError: they are of different suites, judges, data, prompts or numbers of images.
    """
    check_comparable(first, second)
    others = {column.name: column for column in second.columns}
    return {column.name: column_estimate(_minus(column, others[column.name]), paired=True) for column in first.columns}


def check_comparable(first: BenchmarkResult, second: BenchmarkResult) -> None:
    """Refuse to compare what differs by more than the policy; raises ConfigError, naming what it is."""
    check_measured_alike(first, second)
    both = f"{first.policy} and {second.policy} cannot be compared"
    others = {column.name: column for column in second.columns}
    if lone := {column.name for column in first.columns} ^ set(others):
        raise ConfigError(f"{both}: only one of them has the score {min(lone)!r}")
    for column in first.columns:
        other = others[column.name]
        if column.weights != other.weights:
            raise ConfigError(f"{both}: other weights in the score {column.name!r}")
        for name, values in column.strata.items():
            if lone := values.keys() ^ other.strata[name].keys():
                raise ConfigError(f"{both}: only one of them has prompt {min(lone)!r} in the score {column.name!r}")


def check_measured_alike(first: BenchmarkResult, second: BenchmarkResult) -> None:
    """`check_comparable` without the scores, which a measurement that is only planned has not yet."""
    both = f"{first.policy} and {second.policy} cannot be compared"
    if first.suite != second.suite:
        raise ConfigError(f"{both}: suites {first.suite!r} and {second.suite!r}")
    if first.judge != second.judge:
        judges = " and ".join(judge_name(one.judge) for one in (first, second))
        raise ConfigError(f"{both}: different judges, {judges}; scores of two judges say nothing of two policies")
    if first.data["digest"] != second.data["digest"]:
        raise ConfigError(f"{both}: different data, {first.data['file']} and {second.data['file']}")
    if first.protocol != second.protocol:
        keys = sorted({*first.protocol, *second.protocol})
        key = next(key for key in keys if first.protocol.get(key) != second.protocol.get(key))
        values = [one.protocol.get(key) for one in (first, second)]
        if key == "instructions":  # digests, of which a few letters tell enough
            words = " and ".join("unknown" if value is None else str(value)[:12] for value in values)
            raise ConfigError(f"{both}: their judges were asked in different words ({words})")
        raise ConfigError(f"{both}: {key} is {values[0]!r} and {values[1]!r}")
    if first.prompts != second.prompts:
        raise ConfigError(f"{both}: {_scope(first)} and {_scope(second)}; measure both on the same prompts")
    if first.images_per_prompt != second.images_per_prompt:
        raise ConfigError(f"{both}: {first.images_per_prompt} and {second.images_per_prompt} images a prompt")


def draw_subset(prompts: Sequence[Item], subset: Subset | None, unit: str = "prompts") -> list[Item]:
    """So many prompts, or other `unit`, at random, in their order; the same seed draws the same.

    Raises:
        ConfigError: more than there are.
    """
    if subset is None:
        return list(prompts)
    if subset.limit > len(prompts):
        raise ConfigError(f"--limit {subset.limit}: the data hold {len(prompts)} {unit}")
    kept = sorted(random.Random(subset.seed).sample(range(len(prompts)), subset.limit))
    return [prompts[index] for index in kept]


def part_of(count: int, subset: Subset | None) -> Subset | None:
    """The subset as far as it is one: a draw of all prompts is none."""
    return None if subset is None or subset.limit == count else subset


def scope_note(result: BenchmarkResult) -> str | None:
    """What keeps a result from being the benchmark's own number, beside the judge; None: nothing does."""
    official, count = result.data["official"], result.data["prompts"]
    if part_of(count, result.subset) is not None:
        return f"SUBSET: {_scope(result)}. Not the benchmark's number."
    if count != official:
        return f"SUBSET: the data hold {count} of the official {official} prompts. Not the benchmark's number."
    return None


def _scope(result: BenchmarkResult) -> str:
    if result.subset is None:
        return f"all {len(result.prompts)} prompts"
    return f"{result.subset.limit} of {result.data['prompts']} prompts, drawn with seed {result.subset.seed}"


def _minus(first: Column, second: Column) -> Column:
    strata: Mapping[str, Mapping[str, float]] = {
        name: {prompt: value - second.strata[name][prompt] for prompt, value in values.items()}
        for name, values in first.strata.items()
    }
    return replace(first, strata=strata)
