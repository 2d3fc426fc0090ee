"""WISE's official scores, as pure functions of a judge's numbers.

Legacy: WiScore = (0.7 consistency + 0.2 realism + 0.1 aesthetic quality) / 2, each 0, 1 or 2. Verified (2026): 0 or 1.
Category, by id in ranges of the edition's own: mean over its prompts. Overall: weighted sum of categories (https://github.com/PKU-YuanGroup/WISE).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from blip3o_grpo.rewards.benchmarks import Column, mean_column
from blip3o_grpo.rewards.scored_prompt import ScoredPrompt
from blip3o_grpo.rewards.wise.records import KEY, RANGES, VERIFIED_RANGES, category

LABELS = ("Consistency", "Realism", "Aesthetic Quality")
HIGHEST = 2
WEIGHTS = {"Consistency": 0.7, "Realism": 0.2, "Aesthetic Quality": 0.1}
LEGACY_OVERALL = {
    "culture": 0.4,
    "time": 0.167,
    "space": 0.133,
    "biology": 0.1,
    "physics": 0.1,
    "chemistry": 0.1,
}
VERIFIED_OVERALL = {
    "culture": 0.40,
    "time": 0.12,
    "space": 0.12,
    "biology": 0.12,
    "physics": 0.12,
    "chemistry": 0.12,
}


def wiscore(numbers: Mapping[str, int]) -> float:
    """Of one image, 0 to 1.

    Args:
        numbers: every label of `LABELS` to 0, 1 or 2.
    """
    return sum(WEIGHTS[label] * numbers[label] for label in LABELS) / HIGHEST


def columns(
    prompts: Sequence[ScoredPrompt], ranges: Mapping[str, tuple[int, int]], weights: Mapping[str, float]
) -> list[Column]:
    """Categories, then the overall score, which is left out where a category has no prompt.

    Args:
        prompts: with a score for every image.
        ranges: first and last id of each category.
        weights: of the categories in the overall score.
    """
    by_category: dict[str, dict[str, float]] = {name: {} for name in ranges}
    for prompt in prompts:
        values = [float(score) for score in prompt.scores if score is not None]
        by_category[category(prompt.metadata[KEY]["id"], ranges)][prompt.id] = sum(values) / len(values)
    found = [mean_column(name, name.capitalize(), values) for name, values in by_category.items() if values]
    if all(by_category.values()):
        found.append(Column("overall", "Overall", by_category, weights))
    return found


def legacy_columns(prompts: Sequence[ScoredPrompt], protocol: Mapping[str, Any]) -> list[Column]:
    """Columns of the suite `wise`."""
    return columns(prompts, RANGES, LEGACY_OVERALL)


def verified_columns(prompts: Sequence[ScoredPrompt], protocol: Mapping[str, Any]) -> list[Column]:
    """Columns of the suite `wise-verified`."""
    return columns(prompts, VERIFIED_RANGES, VERIFIED_OVERALL)
