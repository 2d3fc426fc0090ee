"""LongText-Bench's text accuracy, as pure functions of what a judge reads.

English: the share of the wanted words that are read, Chinese: of the wanted characters; each occurrence counts once and
order does not. The score pools all prompts: found by wanted (X-Omni's evaluation, https://arxiv.org/abs/2507.22058).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from blip3o_grpo.rewards.benchmarks import Column, pooled_column
from blip3o_grpo.rewards.scored_prompt import ScoredPrompt

LANGUAGES = ("en", "zh")
_LETTERS = "\u4e00-\u9fa5a-zA-Z0-9àâäéèêëîïôöùûüçÀÂÄÉÈÊËÎÏÔÖÙÛÜÇ"
_NO_TEXT = re.compile(rf"[^{_LETTERS}\s]")
_NO_LETTER = re.compile(rf"[^{_LETTERS}]")


def units(text: str, language: str) -> list[str]:
    """What is counted: words in lower case without punctuation; in Chinese characters, their case as it is."""
    if language == "en":
        return _NO_TEXT.sub("", text).lower().split()
    return list(_NO_LETTER.sub("", text))


def chinese_share(texts: Sequence[str]) -> float:
    """Of the characters that count, those that are Chinese."""
    letters = units(" ".join(texts), "zh")
    return sum("\u4e00" <= letter <= "\u9fa5" for letter in letters) / len(letters)


def found_and_wanted(texts: Sequence[str], reading: str, language: str) -> tuple[int, int]:
    """How many of the wanted units are read, and how many there are.

    Args:
        texts: to be written.
        reading: all that was read in the image.
        language: `en` or `zh`.
    """
    wanted = Counter(units(" ".join(texts), language))
    return (wanted & Counter(units(reading, language))).total(), wanted.total()


def columns(prompts: Sequence[ScoredPrompt], protocol: Mapping[str, Any]) -> list[Column]:
    """Short and long texts where both are there, then the score.

    Args:
        prompts: whose explanations hold `found` and `wanted`.
        protocol: unused; the language is in the explanations' counts.
    """
    by_length: dict[str, dict[str, tuple[float, float]]] = {}
    pools: dict[str, tuple[float, float]] = {}
    for prompt in prompts:
        pools[prompt.id] = tuple(
            float(sum(explained[key] for explained in prompt.explanations)) for key in ("found", "wanted")
        )
        by_length.setdefault(str(prompt.metadata.get("length") or "other"), {})[prompt.id] = pools[prompt.id]
    lengths = [pooled_column(name, name.capitalize(), by_length[name]) for name in sorted(by_length)]
    return [*(lengths if len(lengths) > 1 else ()), pooled_column("overall", "Overall", pools)]
