"""How well recognised text matches the wanted text: pure functions, no recogniser.

Four variants, all in [0, 1], all ignoring case and white space (`word` splits at white space first):

- `blip3o`: 1 if the target occurs anywhere in the text, else 1 - min(edit distance, n) / n with n = len(target): the
  score BLIP3o-NEXT was trained with. Known flaws, kept for comparability: one wrong character plus n stray ones
  give 0; text around a correct target costs nothing; punctuation counts like letters.
- `exact`: 1 if the text is the target, else 0.
- `ned`: 1 - edit distance / max(length of either).
- `word`: share of the target's words that occur in the text, each occurrence used once.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from rapidfuzz.distance import Levenshtein

from blip3o_grpo.rewards.types import RewardError

Variant = Literal["blip3o", "exact", "ned", "word"]
VARIANTS: tuple[str, ...] = get_args(Variant)

_DOUBLE_QUOTES = str.maketrans(dict.fromkeys("\u201c\u201d\u201e\u201f\u2033\u00ab\u00bb\uff02", '"'))
_SPAN = re.compile(r'"([^"]*)"')


@dataclass(frozen=True)
class TextLine:
    """One recognised piece of text."""

    text: str
    confidence: float
    """In [0, 1]."""
    box: tuple[float, float, float, float]
    """x1, y1, x2, y2 in pixels, y downwards."""


def quoted_spans(prompt: str) -> list[str]:
    """Texts between double quotes, straight or typographic, in order; blank ones are left out."""
    return [span.strip() for span in _SPAN.findall(prompt.translate(_DOUBLE_QUOTES)) if span.strip()]


def target_texts(prompt: str, metadata: Mapping[str, Any]) -> list[str]:
    """Texts the image should show: `target_text` of the metadata (a string or a list of them), else the quoted spans.

    An empty list means that text rendering does not apply to this prompt.

    Raises:
        RewardError: `target_text` is neither a string nor a list of strings.
    """
    wanted = metadata.get("target_text")
    if wanted is None:
        return quoted_spans(prompt)
    texts = [wanted] if isinstance(wanted, str) else wanted
    if not isinstance(texts, Sequence) or not all(isinstance(text, str) for text in texts):
        raise RewardError(f"prompt {prompt!r}: target_text must be a string or a list of strings, not {wanted!r}")
    return [text.strip() for text in texts if text.strip()]


def reading_order(lines: Sequence[TextLine]) -> list[TextLine]:
    """Sort top to bottom, and left to right within a row.

    A line belongs to a row if it overlaps the row's first line by more than half of the smaller height.
    """
    rows: list[list[TextLine]] = []
    for line in sorted(lines, key=lambda line: (line.box[1] + line.box[3], line.box[0])):
        if rows and _share_row(rows[-1][0], line):
            rows[-1].append(line)
        else:
            rows.append([line])
    return [line for row in rows for line in sorted(row, key=lambda line: line.box[0])]


def _share_row(first: TextLine, second: TextLine) -> bool:
    (_, top_a, _, bottom_a), (_, top_b, _, bottom_b) = first.box, second.box
    return min(bottom_a, bottom_b) - max(top_a, top_b) > 0.5 * min(bottom_a - top_a, bottom_b - top_b)


def score_lines(
    lines: Sequence[TextLine], targets: Sequence[str], variant: Variant = "blip3o", min_confidence: float = 0.0
) -> float | None:
    """Score what was read in one image against the texts it should show.

    Args:
        lines: recognised lines in any order.
        targets: texts wanted; with several, each is scored and the mean returned.
        variant: see the module's docstring.
        min_confidence: lines below it are dropped, in [0, 1].

    Returns:
        Score in [0, 1], or None if there is no target. With several targets `exact` and `ned` compare each with the
        best run of neighbouring lines, since no target could equal the whole text.
    """
    targets = [target for target in targets if _normalised(target)]
    if not targets:
        return None
    texts = [line.text for line in reading_order(lines) if line.confidence >= min_confidence]
    whole = " ".join(texts)
    candidates = [whole]
    if len(targets) > 1 and variant in ("exact", "ned"):
        ends = range(1, len(texts) + 1)
        candidates += [" ".join(texts[start:end]) for end in ends for start in range(end)]
    return sum(max(score_text(text, target, variant) for text in candidates) for target in targets) / len(targets)


def score_text(text: str, target: str, variant: Variant = "blip3o") -> float:
    """Score one recognised text against one target that is not blank; see the module's docstring for the variants.

    Raises:
        RewardError: unknown variant or blank target.
    """
    if variant not in VARIANTS:
        raise RewardError(f"unknown OCR variant {variant!r}; the variants are {', '.join(VARIANTS)}")
    if not _normalised(target):
        raise RewardError("the target text is blank, so there is nothing to score")
    if variant == "word":
        wanted, read = Counter(target.lower().split()), Counter(text.lower().split())
        return (wanted & read).total() / wanted.total()
    text, target = _normalised(text), _normalised(target)
    if variant == "exact":
        return float(text == target)
    distance = Levenshtein.distance(text, target)
    if variant == "ned":
        return 1 - distance / max(len(text), len(target))
    return 1.0 if target in text else 1 - min(distance, len(target)) / len(target)


def _normalised(text: str) -> str:
    """Lower case without any white space."""
    return "".join(text.lower().split())
