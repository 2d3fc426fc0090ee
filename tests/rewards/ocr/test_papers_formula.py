"""The paper's formula, written once more: on one line of text the scores are the same, digit for digit."""

from __future__ import annotations

import random
import string

from blip3o_grpo.rewards.ocr.blocks import TextLine
from blip3o_grpo.rewards.ocr.text_score import score_lines, score_text


def edit_distance(first: str, second: str) -> int:
    """Row by row, as in a textbook."""
    row = list(range(len(second) + 1))
    for i, a in enumerate(first, 1):
        previous, row[0] = row[0], i
        for j, b in enumerate(second, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (a != b))
    return row[-1]


def test_one_line_scores_by_the_papers_formula_digit_for_digit():
    generator = random.Random(11)
    for _ in range(20_000):
        letters = generator.choice(["AB ", "abcAB .!", string.ascii_letters + " ", string.printable])
        target = "".join(generator.choices(letters, k=generator.randint(1, 8)))
        text = "".join(generator.choices(letters, k=generator.randint(0, 12)))
        if generator.random() < 0.2:
            text += target
        a, b = "".join(text.lower().split()), "".join(target.lower().split())
        if not b:
            continue
        distance = edit_distance(a, b)
        formula = 1.0 if b in a else 1 - min(distance, len(b)) / len(b)
        line = TextLine(text, 1.0, (3, 4, 30, 14))
        assert score_text(text, target) == score_lines([line], [target]) == formula
        assert score_text(text, target, "exact") == score_lines([line], [target], "exact") == float(a == b)
        ned = 1 - distance / max(len(a), len(b))
        assert score_text(text, target, "ned") == score_lines([line], [target], "ned") == ned
