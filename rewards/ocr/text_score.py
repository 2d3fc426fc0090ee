"""How well recognised text matches the wanted text: pure functions, no recogniser.

Four variants, all in [0, 1], all on folded text (`rewards.ocr.normalise`), ignoring case and white space (`word` splits
at white space first), and mending words that are hyphenated at the end of a line:

- `blip3o`: 1 if the target occurs anywhere in the text, else 1 - min(edit distance, n) / n with n = len(target): the
  score BLIP3o-NEXT was trained with. Known flaws, kept for comparability: in a line, one wrong character plus n stray
  ones give 0; text around a correct target costs nothing; punctuation counts like letters.
- `exact`: 1 if the text is the target, else 0.
- `ned`: 1 - edit distance / max(length of either).
- `word`: share of the target's words that occur in the text, each occurrence used once. Chinese and Japanese have no
  spaces: there it is the share of characters.

`score_text` is the formula, for one text. `score_lines` is a picture's: it knows of columns, and gives each occurrence
to one target.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Literal, get_args

from rapidfuzz.distance import Levenshtein

from blip3o_grpo.rewards.ocr.blocks import TextLine, reading_orders
from blip3o_grpo.rewards.ocr.line_ends import mended
from blip3o_grpo.rewards.ocr.matching import found_words, occurrence_scores
from blip3o_grpo.rewards.ocr.normalise import letters, words
from blip3o_grpo.rewards.types import RewardError

Variant = Literal["blip3o", "exact", "ned", "word"]
VARIANTS: tuple[str, ...] = get_args(Variant)


def score_lines(
    lines: Sequence[TextLine], targets: Sequence[str], variant: Variant = "blip3o", min_confidence: float = 0.0
) -> float | None:
    """Score what was read in one image against the texts it should show.

    Args:
        lines: recognised lines in any order.
        targets: texts wanted; with several, each is scored and the mean returned. A text that is wanted twice must be
            there twice.
        variant: see the module's docstring.
        min_confidence: lines below it are dropped, in [0, 1].

    Returns:
        Score in [0, 1], or None if there is no target. `blip3o` compares each target with the best run of lines in any
        plausible reading order. So do `exact` and `ned` with several targets, since no target could equal the whole
        text; a single target is compared with the whole text, in its best order.

    Raises:
        RewardError: unknown variant.
    """
    _check_variant(variant)
    targets = sorted(target for target in targets if letters(target))  # so that ties do not depend on any order
    if not targets:
        return None
    lines = sorted(
        (line for line in lines if line.confidence >= min_confidence and letters(line.text)),
        key=lambda line: (line.box, line.text),
    )
    whole, paths = reading_orders(lines)
    texts = mended([line.text for line in lines], whole + paths, targets)
    if variant == "word":
        return max(_word_score([words(texts[index]) for index in order], targets) for order in whole)
    if variant != "blip3o" and len(targets) == 1:
        (wanted,), read = map(letters, targets), list(map(letters, texts))
        return max(_FORMULAS[variant]("".join(read[index] for index in order), wanted) for order in whole)
    scores = occurrence_scores(texts, whole + paths, targets, _FORMULAS[variant], variant != "blip3o")
    return sum(scores) / len(scores)


def score_text(text: str, target: str, variant: Variant = "blip3o") -> float:
    """Score one recognised text against one target that is not blank; see the module's docstring for the variants.

    Raises:
        RewardError: unknown variant or blank target.
    """
    _check_variant(variant)
    if not letters(target):
        raise RewardError("the target text is blank, so there is nothing to score")
    if variant == "word":
        wanted = words(target)
        return found_words(wanted, words(text))[0] / len(wanted)
    return _FORMULAS[variant](letters(text), letters(target))


def _check_variant(variant: str) -> None:
    if variant not in VARIANTS:
        raise RewardError(f"unknown OCR variant {variant!r}; the variants are {', '.join(VARIANTS)}")


def _word_score(lines: Sequence[Sequence[str]], targets: Sequence[str]) -> float:
    """Mean share of the targets' words; the target that is there most completely takes its words first."""
    read: list[str | None] = [word for line in lines for word in line]
    ends = set(accumulate(map(len, lines)))
    missing = [words(target) for target in targets]
    total = 0.0
    while missing:
        found = [found_words(wanted, read, ends) for wanted in missing]
        shares = [count / len(wanted) for (count, _), wanted in zip(found, missing, strict=True)]
        best = max(range(len(missing)), key=lambda target: (shares[target], len(missing[target])))
        total += shares[best]
        read = found[best][1]
        del missing[best]
    return total / len(targets)


def _blip3o(text: str, target: str) -> float:
    if target in text:
        return 1.0
    return 1 - min(Levenshtein.distance(text, target), len(target)) / len(target)


def _exact(text: str, target: str) -> float:
    return float(text == target)


def _ned(text: str, target: str) -> float:
    return 1 - Levenshtein.distance(text, target) / max(len(text), len(target))


_FORMULAS = {"blip3o": _blip3o, "exact": _exact, "ned": _ned}
