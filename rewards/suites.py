"""Suites: what `blip3o-grpo eval` can measure. Each is declared beside its reward and found by name.

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
from blip3o_grpo.rewards.benchmarks import Benchmark, BenchmarkPrompt
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
    read: Callable[[Path, Sequence[BenchmarkPrompt]], Sequence[ScoredPrompt]] | None = None
    """Recorded answers about these prompts, scored, without images; None: cannot be read.

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


@cache
def available_suites() -> Mapping[str, EntryPoint]:
    """Registered suites by name, nothing imported."""
    return {entry.name: entry for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name)}


def find_suite(name: str) -> Suite:
    """A registered suite.

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
    if not isinstance(suite, Suite):
        raise RewardError(f"suite {name!r}: {known[name].value} is no Suite")
    return suite
