"""DPG-Bench's official scores, as pure functions of answers.

An answer is 1 for yes and 0 for all else. In the order of the questions, one whose parent scores 0 gets 0, so a zeroed
parent zeroes its children. Image: mean over its questions. Prompt: mean over its images. Total: mean over prompts.
Categories pool the answers themselves, before anything is zeroed, over all questions (`compute_dpg_bench.py` of
https://github.com/TencentQQGYLab/ELLA).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from blip3o_grpo.rewards.benchmarks import Column, mean_column, pooled_column
from blip3o_grpo.rewards.dpg.questions import DPGQuestion, questions_of
from blip3o_grpo.rewards.scored_prompt import ScoredPrompt

CATEGORIES = {
    "global": "Global",
    "entity": "Entity",
    "attribute": "Attribute",
    "relation": "Relation",
    "other": "Other",
}
"""In the order of published tables."""


def chained(answers: Mapping[int, float], questions: Sequence[DPGQuestion]) -> dict[int, float]:
    """Scores of an image's questions after dependencies.

    Args:
        answers: question id to 1 (yes) or 0.
        questions: in their official order.
    """
    scores = dict(answers)
    for question in questions:
        if any(scores[parent] == 0 for parent in question.parents):
            scores[question.id] = 0.0
    return scores


def image_score(answers: Mapping[int, float], questions: Sequence[DPGQuestion]) -> float:
    """Mean over an image's questions."""
    scores = chained(answers, questions)
    return sum(scores.values()) / len(scores)


def columns(prompts: Sequence[ScoredPrompt], protocol: Mapping[str, Any]) -> list[Column]:
    """Broad categories, then the total; shares of 1.

    Args:
        prompts: whose explanations hold `answers`, question id (as text, which JSON wants) to 1 or 0.
        protocol: `category_images` is `all`, or `last` as in the official script.
    """
    by_category: dict[str, dict[str, tuple[float, float]]] = {category: {} for category in CATEGORIES}
    totals: dict[str, float] = {}
    for prompt in prompts:
        questions = questions_of(prompt.metadata)
        images = [{int(key): value for key, value in found["answers"].items()} for found in prompt.explanations]
        totals[prompt.id] = sum(image_score(answers, questions) for answers in images) / len(images)
        for question in questions:
            counted = images[-1:] if protocol["category_images"] == "last" else images
            pool = by_category.setdefault(question.category, {})
            part, whole = pool.get(prompt.id, (0.0, 0.0))
            pool[prompt.id] = (part + sum(image[question.id] for image in counted), whole + len(counted))
    return [
        *(
            pooled_column(category, CATEGORIES.get(category, category.capitalize()), pool)
            for category, pool in by_category.items()
            if pool
        ),
        mean_column("overall", "Overall", totals),
    ]
