"""Are two run folders the same? Metrics, evaluations and recorded rollouts, number by number.

Times and counts of faults may differ; all else may differ by rounding only (`TOLERANCE`).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from blip3o_grpo.rollout import read_rollouts

TOLERANCE = 1e-4
LOGPROB_TOLERANCE = 5e-3
"""Of a whole completion's log-probability: dozens of tokens, each within `TOLERANCE`."""
PIXEL_TOLERANCE = 1
FREE = ("time/", "faults/")
"""Metrics that tell how a run went, not what came out."""


@dataclass
class Comparison:
    """Of one kind of result."""

    what: str
    compared: int = 0
    """Numbers, or pictures."""
    largest: float = 0.0
    """Difference of two numbers."""
    differences: list[str] = field(default_factory=list)
    """Where, and both values."""

    def same(self, where: str, ours: Any, theirs: Any) -> None:
        """Two values that must be equal."""
        self.compared += 1
        if ours != theirs:
            self.differences.append(f"{where}: {theirs} became {ours}")

    def close(self, where: str, ours: float | None, theirs: float | None, tolerance: float = TOLERANCE) -> None:
        """Two numbers (None: there is none) that may differ by rounding."""
        if ours is None or theirs is None:
            return self.same(where, ours, theirs)
        self.compared += 1
        self.largest = max(self.largest, abs(ours - theirs))
        if not abs(ours - theirs) <= tolerance:
            self.differences.append(f"{where}: {theirs:.6g} became {ours:.6g}")
        return None


def compare_runs(expected: Path, found: Path) -> list[Comparison]:
    """Everything that must be the same in two runs with the same configuration."""
    return [
        compare_metrics(read_lines(expected / "metrics.jsonl"), read_lines(found / "metrics.jsonl")),
        compare_evaluations(expected / "evaluations", found / "evaluations"),
        *compare_rollouts(read_rollouts(expected), read_rollouts(found)),
    ]


def read_lines(file: Path) -> list[dict[str, Any]]:
    """Complete lines of a JSONL file; none if there is no such file yet."""
    if not file.is_file():
        return []
    return [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n")[:-1]]


def compare_metrics(expected: Sequence[Mapping[str, Any]], found: Sequence[Mapping[str, Any]]) -> Comparison:
    """Every step once, with the same values."""
    result = Comparison("metrics")
    result.same("steps", [line["step"] for line in found], [line["step"] for line in expected])
    for ours, theirs in zip(found, expected, strict=False):
        names = [name for name in theirs if not name.startswith(FREE)]
        result.same(f"names in step {theirs['step']}", [name for name in ours if not name.startswith(FREE)], names)
        for name in names:
            result.close(f"step {theirs['step']}, {name}", ours.get(name), theirs[name])
    return result


def compare_evaluations(expected: Path, found: Path) -> Comparison:
    """Held-out scores: means, and every prompt's own."""
    result = Comparison("held-out scores")
    result.same("evaluations", *(sorted(file.name for file in folder.glob("*.json")) for folder in (found, expected)))
    for file in sorted(expected.glob("*.json")):
        if (found / file.name).is_file():
            ours, theirs = (dict(numbers(json.loads((folder / file.name).read_text()))) for folder in (found, expected))
            result.same(f"names in {file.name}", sorted(ours), sorted(theirs))
            for name in theirs:
                result.close(f"{file.name}, {name}", ours.get(name), theirs[name])
    return result


def numbers(value: Any, name: str = "") -> Iterator[tuple[str, float | None]]:
    """Every number in nested lists and dictionaries, under a dotted name."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from numbers(inner, f"{name}.{key}" if name else key)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from numbers(inner, f"{name}.{index}")
    elif value is None or isinstance(value, int | float):
        yield name, value


def compare_rollouts(expected: Sequence[dict[str, Any]], found: Sequence[dict[str, Any]]) -> list[Comparison]:
    """Nothing lost, nothing twice, the same draws, scores and pictures."""
    presence, draws, scores = Comparison("rollouts lost or doubled"), Comparison("draws"), Comparison("scores")
    pictures = Comparison("pictures")
    counts, ours = Counter(map(_place, found)), {_place(group): group for group in found}
    presence.compared = len(expected)
    places = [_place(group) for group in expected]
    presence.differences += [f"{place}: lost" for place in places if not counts[place]]
    presence.differences += [f"{place}: {count} times" for place, count in counts.items() if count > 1]
    presence.differences += [f"{place}: nobody asked for it" for place in counts if place not in set(places)]
    for theirs in expected:
        if (place := _place(theirs)) in ours:
            _compare_group(str(place), ours[place], theirs, draws, scores)
            for kind in ("best", "worst"):
                pictures.same(f"{place}, {kind}", ours[place][kind]["member"], theirs[kind]["member"])
            for member, files in enumerate(zip(ours[place].get("images", ()), theirs.get("images", ()), strict=False)):
                ours_image, theirs_image = (np.asarray(Image.open(file), dtype=int) for file in files)
                pictures.close(
                    f"{place}, image {member}", float(np.abs(ours_image - theirs_image).max()), 0.0, PIXEL_TOLERANCE
                )
    return [presence, draws, scores, pictures]


def _place(group: Mapping[str, Any]) -> tuple[int | str, str]:
    return group["step"], group["prompt_id"]


def _compare_group(
    place: str, ours: Mapping[str, Any], theirs: Mapping[str, Any], draws: Comparison, scores: Comparison
) -> None:
    draws.same(f"{place}, policy version", ours["policy_version"], theirs["policy_version"])
    draws.same(f"{place}, members", len(ours["rollouts"]), len(theirs["rollouts"]))
    for member, (rollout, expected) in enumerate(zip(ours["rollouts"], theirs["rollouts"], strict=False)):
        draws.same(f"{place}, seed of {member}", rollout["seed"], expected["seed"])
        draws.close(f"{place}, log-prob of {member}", rollout["logprob"], expected["logprob"], LOGPROB_TOLERANCE)
        for name, value in expected["rewards"].items():
            scores.close(f"{place}, {name} of {member}", rollout["rewards"].get(name), value)
