"""WISE's prompt files: JSON lists with `Prompt`, `Explanation`, `Category`, `Subcategory`, `prompt_id`, checked.

They have no licence, so none comes with the project: the user gives a path. There are two editions: the verified one of
2026 has other prompts under the same ids, and other ranges of ids.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from blip3o_grpo.configs import ConfigError
from blip3o_grpo.configs.strict_json import parse_json
from blip3o_grpo.rewards.types import RewardError

KEYS = ("Prompt", "Explanation", "Category", "Subcategory", "prompt_id")
KEY = "wise"
"""Of a prompt's metadata: its record."""
CATEGORIES = {
    "cultural knowledge": "culture",
    "time": "time",
    "space": "space",
    "biology": "biology",
    "physical knowledge": "physics",
    "chemistry": "chemistry",
}
"""The files' `Category`, in lower case, to the category of the scores."""
RANGES = {
    "culture": (1, 400),
    "time": (401, 567),
    "space": (568, 700),
    "biology": (701, 800),
    "physics": (801, 900),
    "chemistry": (901, 1000),
}
"""First and last `prompt_id` of each category."""
VERIFIED_RANGES = {
    "culture": (1, 400),
    "time": (401, 520),
    "space": (521, 640),
    "biology": (641, 760),
    "physics": (761, 880),
    "chemistry": (881, 1000),
}
"""The same of the verified edition (`calculate_verified.py`)."""


@dataclass(frozen=True)
class Edition:
    """One of the benchmark's two sets of prompts."""

    suite: str
    """That measures on it."""
    name: str
    """In results."""
    folder: str
    """Of the official repository."""
    files: tuple[str, ...]
    """In it, which together hold all prompts."""
    ranges: Mapping[str, tuple[int, int]]
    """First and last `prompt_id` of each category."""


LEGACY = Edition(
    "wise",
    "legacy",
    "WISE_legacy/data",
    ("cultural_common_sense.json", "spatio-temporal_reasoning.json", "natural_science.json"),
    RANGES,
)
VERIFIED = Edition(
    "wise-verified",
    "verified",
    "data_verified",
    (
        "cultural_common_sense_verified.json",
        "spatio-temporal_reasoning_verified.json",
        "natural_science_verified.json",
    ),
    VERIFIED_RANGES,
)


@dataclass(frozen=True)
class WiseRecord:
    """One prompt."""

    id: int
    prompt: str
    explanation: str
    """What the picture should show."""
    subcategory: str


def other_edition(edition: Edition) -> Edition:
    """The one that it must not be mixed up with."""
    return LEGACY if edition is VERIFIED else VERIFIED


def category(prompt_id: int, ranges: Mapping[str, tuple[int, int]]) -> str:
    """By an edition's official ranges of ids.

    Raises:
        ValueError: none of them holds the id.
    """
    for name, (first, last) in ranges.items():
        if first <= prompt_id <= last:
            return name
    raise ValueError(f"prompt_id is {prompt_id}; WISE's go from 1 to 1000")


def read_records(text: str, file: str, edition: Edition) -> list[WiseRecord]:
    """Records of one prompt file.

    Raises:
        ConfigError: naming file, entry and key; also where a `Category` is not that of the id in this edition.
    """
    try:
        entries = parse_json(text)
    except ValueError as error:
        raise ConfigError(f"{file}: {error}") from error
    if not isinstance(entries, list) or not entries:
        raise ConfigError(f"{file}: a WISE prompt file is a list of objects, with {', '.join(KEYS)}")
    return [_record(entry, f"{file}: entry {number}", edition) for number, entry in enumerate(entries, start=1)]


def join_records(files: Mapping[str, Sequence[WiseRecord]]) -> list[WiseRecord]:
    """Records of all files in the order of their ids.

    Raises:
        ConfigError: an id that appears twice.
    """
    found: dict[int, tuple[str, WiseRecord]] = {}
    for file, records in files.items():
        for record in records:
            if record.id in found:
                raise ConfigError(f"{file}: prompt_id {record.id} appears twice (first in {found[record.id][0]})")
            found[record.id] = (file, record)
    return [found[number][1] for number in sorted(found)]


def as_metadata(record: WiseRecord) -> dict[str, Any]:
    """What a prompt's metadata say of a record."""
    return {KEY: {"id": record.id, "explanation": record.explanation, "subcategory": record.subcategory}}


def explanation_of(metadata: Mapping[str, Any]) -> str:
    """The explanation that a prompt's metadata hold under `wise`; raises RewardError where there is none."""
    record = metadata[KEY]
    if not isinstance(record, Mapping) or not isinstance(record.get("explanation"), str):
        raise RewardError(f"`{KEY}` must be an object with `explanation`, found {record!r:.100}")
    return record["explanation"]


def _record(entry: Any, place: str, edition: Edition) -> WiseRecord:
    if not isinstance(entry, Mapping):
        raise ConfigError(f"{place}: expected an object with {', '.join(KEYS)}, found {type(entry).__name__}")
    for key in KEYS:
        if key not in entry:
            near = difflib.get_close_matches(key, entry, n=1)
            hint = f"; {near[0]!r} is not it" if near else ""
            raise ConfigError(f"{place}: lacks the key {key!r}{hint}")
    number = entry["prompt_id"]
    if isinstance(number, bool) or not isinstance(number, int):
        raise ConfigError(f"{place}: prompt_id is {number!r}; it must be a whole number")
    try:
        by_id = category(number, edition.ranges)
    except ValueError as error:
        raise ConfigError(f"{place}: {error}") from None
    for key in ("Prompt", "Explanation", "Category", "Subcategory"):
        if not isinstance(entry[key], str) or not entry[key].strip():
            raise ConfigError(f"{place}: {key} is missing or no text")
    # Words of no edition, such as `Ecology` in an official file of rewritten prompts, contradict nothing.
    if CATEGORIES.get(entry["Category"].strip().lower(), by_id) != by_id:
        raise ConfigError(
            f"{place}: Category is {entry['Category']!r}, but in suite {edition.suite!r} prompt_id {number} is of "
            f"{by_id}; the other edition is suite {other_edition(edition).suite!r}"
        )
    return WiseRecord(number, entry["Prompt"].strip(), entry["Explanation"].strip(), entry["Subcategory"].strip())
