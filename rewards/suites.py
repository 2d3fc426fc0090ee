"""Suites: what `blip3o-grpo eval` can measure. Each is declared beside what computes it and found by name.

A `Suite` scores images that a policy draws, by a reward; a `ReadingSuite` has it read, and draws nothing.

The entry-point group `blip3o_grpo.suites` of all installed packages names them, so that a plug-in may bring its own.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from blip3o_grpo.configs import ConfigError
from blip3o_grpo.rewards.benchmarks import Benchmark, BenchmarkPrompt, RecordedAnswers
from blip3o_grpo.rewards.scored_prompt import ScoredPrompt
from blip3o_grpo.rewards.types import RewardError

GROUP = "blip3o_grpo.suites"
DEFAULT_SUITE = "ocr"


@dataclass(frozen=True)
class PublishedRow:
    """One model's line of a table, as its authors publish it."""

    model: str
    overall: float
    tags: Mapping[str, float]
    """By the reward's tag; empty where only the overall score is known."""
    rewritten: bool
    """Measured on prompts that a language model had made longer."""
    source: str


@dataclass(frozen=True)
class ResultFormat:
    """Result files of a benchmark's own."""

    name: str
    """In words, for messages."""
    check: Callable[[Path], None]
    """Raises ConfigError where writing would fail or replace anything but older results."""
    write: Callable[[Path, Sequence[ScoredPrompt]], None]
    read: Callable[[Path, Sequence[BenchmarkPrompt], Sequence[BenchmarkPrompt]], RecordedAnswers] | None = None
    """Recorded answers about the first prompts; what is said of the second, which are in the data and not measured, is
    passed over. None: cannot be read.

    Raises ConfigError in one line where answers are missing, twice there, or none."""


@dataclass(frozen=True)
class Suite:
    """One thing to measure."""

    reward: str
    """Registered name of its reward, and of its column."""
    recipe: str
    """Settings where neither a run folder nor the user gives any: a file name in `blip3o_grpo/configs`, or a path."""
    needs: str
    """What a prompt must have to be scored, in words."""
    uses_run_options: bool = False
    """Take options and environment of a reward of this kind from the settings."""
    options: Callable[[Mapping[str, Any]], Mapping[str, Any]] = lambda given: given
    """Options to measure with, from those of the settings' reward; of an empty mapping where there is none."""
    counts_correct: bool = False
    """A score above 0 is a correct image: also report the share of prompts with one."""
    published: tuple[PublishedRow, ...] = ()
    notes: Callable[[Mapping[str, Any]], Sequence[str]] = lambda options: ()
    """Lines below the table, from the reward's options."""
    published_notes: tuple[str, ...] = ()
    """What the published rows are, and what they are not."""
    results: ResultFormat | None = None
    benchmark: Benchmark | None = None
    """Its official data and table, where it has any; None: it measures on prompts of the settings."""


@dataclass(frozen=True)
class Measure:
    """One number of a reading suite, with what every item contributes to it."""

    name: str
    """In results and cards."""
    title: str
    lower_is_better: bool = False
    margin: float = 0.05
    """Smallest loss that matters on a card, unless its user says otherwise."""
    at_start: float | None = None
    """Of a starting policy, where that is known without measuring it: its distance to itself. Such a measure needs a
    starting policy to be taken of another one."""
    also: tuple[str, Callable[[float], float]] | None = None
    """Title of a number that grows with this one and says the same, and how: perplexity, by `math.exp`."""


@dataclass(frozen=True)
class ReadingData:
    """What a reading suite reads."""

    file: Path
    items: Mapping[str, Any]
    """Id to what `measure` takes, in the file's order."""
    digest: str
    """SHA-256 of the files that were read."""
    notes: tuple[str, ...] = ()
    """Lines below the table."""


@dataclass(frozen=True)
class ReadingSuite:
    """Something to measure of a policy that reads."""

    set_name: str
    """What its items are called on a card: `texts`."""
    measures: tuple[Measure, ...]
    read: Callable[[Path | None], ReadingData]
    """The data at the path that the user gave (None: what the project ships).

    Raises ConfigError in one line for whatever is wrong with them."""
    check: Callable[[Path, ReadingData], None]
    """Whether the policy in a folder can read the data, before any model loads.

    Raises CheckpointError or ConfigError in one line where it cannot."""
    measure: Callable[
        [Path, Path | None, Mapping[str, Any], Callable[[int], None]], Mapping[str, Mapping[str, tuple[float, float]]]
    ]
    """Of a policy's folder, a starting policy's folder or None, and items: measure to item id to its part and its
    whole. The number is the sum of parts by the sum of wholes. The last argument is called with the number of items
    that are done."""


@cache
def available_suites() -> Mapping[str, EntryPoint]:
    """Registered suites by name, nothing imported."""
    return {entry.name: entry for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name)}


def find_suite(name: str) -> Suite:
    """A registered suite that scores images.

    Raises:
        ConfigError: unknown name, with the nearest known one; or a suite that draws none.
        RewardError: what is registered is no suite.
    """
    suite = find_any_suite(name)
    if isinstance(suite, ReadingSuite):
        raise ConfigError(f"suite {name!r} draws no images; measure it with blip3o_grpo.read_suite")
    return suite


def find_any_suite(name: str) -> Suite | ReadingSuite:
    """A registered suite of either kind.

    Raises:
        ConfigError: unknown name, with the nearest known one.
        RewardError: what is registered is no suite.
    """
    known = available_suites()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known suites: {', '.join(known)}"
        raise ConfigError(f"unknown suite {name!r}; {hint}")
    suite = known[name].load()
    if not isinstance(suite, Suite | ReadingSuite):
        raise RewardError(f"suite {name!r}: {known[name].value} is no Suite and no ReadingSuite")
    return suite
