"""Benchmarks: suites with official data, an official way of adding scores up, and columns of a published table.

Every number of such a table is a weighted sum of means over prompts, so that one kind of interval serves all. A share
that a benchmark pools over questions or words, sum of parts by sum of wholes, is the mean of values that each prompt
contributes to it (linearisation: Särndal, Swensson, Wretman, "Model Assisted Survey Sampling", 1992, section 5.6).
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from blip3o_grpo.configs import ConfigError
from blip3o_grpo.configs.regular_files import read_bytes
from blip3o_grpo.rewards.scored_prompt import ScoredPrompt

ALL = ""
"""Name of the stratum of a column that has but one."""


@dataclass(frozen=True)
class Column:
    """One number of a benchmark's table, with what every prompt contributes to it."""

    name: str
    """In results; a published row has the same names."""
    title: str
    strata: Mapping[str, Mapping[str, float]]
    """Stratum to prompt id to value. None of them is empty."""
    weights: Mapping[str, float]
    """Of the strata's means."""
    of_shares: bool = False
    """Every value is a share itself, 0 to 1. What a prompt contributes to a pooled share may lie outside."""

    @property
    def value(self) -> float:
        """The number itself."""
        return sum(
            self.weights[name] * sum(values.values()) / len(values) for name, values in self.strata.items()
        )  # fmt: skip


def mean_column(name: str, title: str, values: Mapping[str, float]) -> Column:
    """Plain mean over prompts of shares, 0 to 1."""
    return Column(name, title, {ALL: dict(values)}, {ALL: 1.0}, of_shares=True)


def pooled_column(name: str, title: str, parts: Mapping[str, tuple[float, float]]) -> Column:
    """Sum of parts by sum of wholes.

    Args:
        name: of the column.
        title: likewise.
        parts: prompt id to its part and its whole; wholes add up to more than 0.
    """
    wholes = sum(whole for _, whole in parts.values())
    share = sum(part for part, _ in parts.values()) / wholes
    mean_whole = wholes / len(parts)
    values = {prompt: share + (part - share * whole) / mean_whole for prompt, (part, whole) in parts.items()}
    return Column(name, title, {ALL: values}, {ALL: 1.0})


@dataclass(frozen=True)
class BenchmarkPrompt:
    """One prompt of a benchmark's data."""

    id: str
    """The official one."""
    text: str
    metadata: Mapping[str, Any]
    """What the benchmark's reward needs."""


@dataclass(frozen=True)
class Instructions:
    """In which words a judge is asked: two results that were asked in different ones are not compared."""

    digest: str
    """Of the words; stands in a result's protocol."""
    note: str
    """A line below the table."""
    given: bool = False
    """By the user, who says so of recorded answers too."""


RECORDED_WORDS = Instructions("recorded", "Recorded answers: nothing says in which words the judge was asked.")
"""Of answers that somebody else asked for."""


@dataclass(frozen=True)
class BenchmarkData:
    """What was read."""

    file: Path
    prompts: Sequence[BenchmarkPrompt]
    digest: str
    """SHA-256 of the files that were read."""
    reward_options: Mapping[str, Any] = field(default_factory=dict)
    protocol: Mapping[str, Any] = field(default_factory=dict)
    """What two results must have in common to be compared, beside judge, instructions, data and prompts."""
    instructions: Instructions | None = None
    """Of the judge; None: the suite does not say."""
    notes: tuple[str, ...] = ()
    left_out: int = 0
    """Official prompts that an official habit leaves out: the table is not a subset for that."""


@dataclass(frozen=True)
class RecordedAnswers:
    """What a file of recorded answers holds."""

    prompts: Sequence[ScoredPrompt]
    """Scored and explained, without images."""
    notes: tuple[str, ...] = ()
    """Lines below the table."""


@dataclass(frozen=True)
class Benchmark:
    """What a suite with official data declares."""

    num_prompts: int
    """The official number; a table of fewer says so."""
    images_per_prompt: int
    """The official number."""
    read: Callable[[Path | None, Mapping[str, Any]], BenchmarkData]
    """The data at the path that the user gave (None: what the project ships), with the suite's own options.

    Raises ConfigError in one line for whatever is wrong with them."""
    columns: Callable[[Sequence[ScoredPrompt], Mapping[str, Any]], Sequence[Column]]
    """Of the table, the overall score last, from explained scores and the protocol. Pure."""
    percent: bool = False
    """The published numbers are percents."""
    most_images: int | None = None
    """Images of one prompt that the official result format has room for; None: any number."""


def check_suite_options(suite: str, given: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """The suite's options with their defaults.

    Args:
        suite: name, for messages.
        given: by the user, as texts.
        known: names to defaults; a default of True or False makes a switch.

    Raises:
        ConfigError: unknown name, or a switch that is neither true nor false.
    """
    values = dict(known)
    for name, value in given.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"it takes: {', '.join(known) or 'none'}"
            raise ConfigError(f"suite {suite!r}: unknown option {name!r}; {hint}")
        if isinstance(known[name], bool):
            if str(value).lower() not in ("true", "false"):
                raise ConfigError(f"suite {suite!r}: option {name} is {value!r}; it must be true or false")
            value = str(value).lower() == "true"
        values[name] = value
    return values


def digest(*contents: bytes) -> str:
    """Of files, in their order."""
    found = hashlib.sha256()
    for content in contents:
        found.update(hashlib.sha256(content).digest())
    return found.hexdigest()


def read_data(path: Path, what: str, option: str = "--data") -> bytes:
    """A data file's bytes.

    Args:
        path: of the file.
        what: should be there, for messages.
        option: by which the user named it, likewise.

    Raises:
        ConfigError: it is not there, or cannot be read.
    """
    try:
        return read_bytes(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ConfigError(f"{path}: no such file; {option} names {what}") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); {option} names {what}") from error


def decode(content: bytes, path: Path) -> str:
    """A data file's text; raises ConfigError where it is not UTF-8."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ConfigError(f"{path}:{line}: not valid UTF-8 (byte {content[error.start]:#04x})") from error
