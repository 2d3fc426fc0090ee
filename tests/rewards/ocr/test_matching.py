"""Occurrences and words are given out once, worked out by hand."""

from __future__ import annotations

import pytest

from blip3o_grpo.rewards.ocr.matching import found_words, occurrence_scores
from blip3o_grpo.rewards.ocr.text_score import score_text


def equal_letters(text: str, target: str) -> float:
    """Share of places at which the letters agree."""
    return sum(a == b for a, b in zip(text, target, strict=False)) / max(len(text), len(target))


def scores(texts: list[str], *targets: str, whole_words: bool = False, orders=None, score=equal_letters) -> list[float]:
    return occurrence_scores(texts, orders or [tuple(range(len(texts)))], targets, score, whole_words)


@pytest.mark.parametrize(
    ("texts", "targets", "loose", "strict"),
    [
        (["AB CD"], ["AB", "CD"], [1, 1], [1, 1]),
        (["ABCD"], ["AB", "CD"], [1, 1], [0.5, 0]),
        (["AB CD"], ["AB"], [1], [0.5]),
        (["AB", "CD"], ["ABCD"], [1], [1]),
        (["AB", "CD", "EF"], ["BC", "DE"], [1, 1], [0, 0]),
        (["XAB", "CD"], ["ABCD"], [1], [0]),
        (["AB", "CD Y"], ["ABCD"], [1], [0.8]),
        (["X AB", "CD Y"], ["ABCD", "Y", "X"], [1, 1, 1], [1, 1, 1]),
        (["X AB", "CD Y"], ["ABCD", "X"], [1, 1], [0, 0.33]),
        (["AB", "AB"], ["AB", "AB", "AB"], [1, 1, 0], [1, 1, 0]),
        (["X ABC D"], ["ABC", "D", "X"], [1, 1, 1], [1, 1, 1]),
        (["ABA"], ["AB", "BA"], [1, 0], [0.67, 0]),
        (["A B C"], ["B", "A C"], [1, 0.33], [0, 0.33]),
    ],
)
def test_targets_share_the_picture(texts, targets, loose, strict):
    assert scores(texts, *targets) == pytest.approx(loose, abs=0.01)
    assert scores(texts, *targets, whole_words=True) == pytest.approx(strict, abs=0.01)


def test_an_occurrence_at_the_edges_of_lines_or_words_is_taken_before_one_inside_a_word():
    assert scores(["NOT NO"], "NO", "OT") == [1, 1]
    assert scores(["NOT NO X"], "NO", "OT") == [1, 1]
    assert scores(["A NO X", "NO", "OX"], "NO", "AN", "OY", orders=[(0,), (1,), (2,)]) == [1, 1, 0.5]
    assert scores(["XNO", "NO YY", "NO"], "NO", "XNO", "NOYY") == [1, 1, 1]
    assert scores(["XA A Y"], "A", "XAQY") == [1, 0.75]


def test_a_whole_line_is_taken_before_a_word_of_another():
    """So that no words are left over there; found letter by letter, it needs no score."""
    for texts in (["Q A", "A"], ["A", "Q A"], ["Q A", "A", "A Q"]):
        assert scores(texts, "A", whole_words=True, score=lambda *_: 0.0) == [1]


def test_an_occurrence_in_one_line_is_taken_before_one_over_two():
    assert scores(["A", "B AB", "Q"], "AB", "A", "B", orders=[(0, 1, 2)]) == [1, 1, 1]


def test_the_longest_target_comes_first():
    assert scores(["ABC", "AB"], "AB", "ABC") == scores(["AB", "ABC"], "AB", "ABC") == [1, 1]
    assert scores(["ABCAB"], "AB", "ABC") == [1, 1]
    assert scores(["ABCAB"], "AB", "BCA") == [pytest.approx(1 / 3), 1]


def test_any_order_may_hold_an_occurrence():
    assert scores(["A", "B", "C"], "CA", orders=[(0, 1, 2), (2, 0)]) == [1]
    assert scores(["A", "B", "C"], "AC", orders=[(0, 1, 2), (2, 0)]) == [0.5]


def test_what_was_given_to_a_target_splits_the_rest():
    """What is left at its two sides is no text together: the gap counts as one letter."""
    assert scores(["XABY"], "AB", "XY") == [1, pytest.approx(1 / 3)]
    assert scores(["ABXY"], "AB", "XZ") == [1, 0.5]
    assert scores(["XYAB"], "AB", "XZ") == [1, 0.5]


def test_the_best_match_is_given_out_first_and_its_lines_are_gone():
    assert scores(["ABCX"], "ABZZ", "ABCZ") == [0, 0.75]
    assert scores(["ABCX"], "ABCZ", "ABZZ") == [0.75, 0]
    assert scores(["ABCX", "ABYY"], "ABZZ", "ABCZ") == [0.5, 0.75]
    assert scores(["AB", "CX", "ABY"], "ABCZ", "ABZ") == [0.75, pytest.approx(2 / 3)]
    assert scores(["ABX", "ABX"], "ABZ", "ABW", "ABV") == pytest.approx([2 / 3, 2 / 3, 0])
    assert scores(["QRSX", "ABCX"], "ABCZ", "QRST") == [0.75, 0.75]  # the lines before stay
    assert scores([], "A") == [0]


def test_a_long_run_may_be_the_best_match():
    """Of 14 letters, 6 are those of the target, in its order; without the second line 5 of 13, without the first 1."""
    (score,) = scores(["ABCDEQQQQQQQQ", "F"], "ABCDEF", score=lambda text, target: score_text(text, target, "ned"))
    assert score == pytest.approx(6 / 14)


def test_runs_too_long_to_score_more_are_not_scored():
    seen = []

    def spy(text: str, target: str) -> float:
        seen.append(text)
        return equal_letters(text, target)

    assert scores(["ABX", *["CDE"] * 50], "ABZ", score=spy) == [pytest.approx(2 / 3)]
    assert max(map(len, seen)) == 9 and len(seen) == len(set(seen))
    seen.clear()
    assert scores(["QQQ"] * 50, "ABZ", score=spy) == [0]
    assert max(map(len, seen)) == 9


@pytest.mark.parametrize(
    ("wanted", "read", "count", "left"),
    [
        ("A B", "B A", 2, ""),
        ("A A B", "A C", 1, "C"),
        ("A", "A A", 1, "A"),
        ("C++ & C#", "C++&C#", 3, ""),
        ("C++ & C#", "X C++& C# Y", 3, "X Y"),
        ("C++ & C#", "C++ & C #", 3, ""),
        ("50%", "50 %", 1, ""),
        ("50 % OFF", "50% OFF", 3, ""),
        ("A B", "AB", 0, "AB"),
        ("AB", "A B", 0, "A B"),
        ("A & B", "A&B A&B", 3, "A&B"),
        ("A & B & C", "A&B &C", 5, ""),
        ("A & B", "A&B&C", 0, "A&B&C"),
        ("A & B", "& A&B", 1, "A&B"),  # the word that stands alone is found first
        ("1 . 2 5 . 6", "5.6 1.2", 6, ""),
        ("A. B.", "A.B. C", 2, "C"),
        ("A. B C", "A.BC", 0, "A.BC"),
        ("A .", "", 0, ""),
        ("A & B", "A& A&B", 3, "A&"),  # the longest run first
        ("A & B", "A&B A&", 3, "A&"),  # and no part of it again
        ("A & B 50 %", "A&B 50%", 5, ""),
        ("AB%", "A B%", 0, "A B%"),
    ],
)
def test_found_words(wanted, read, count, left):
    found, rest = found_words(wanted.split(), read.split())
    assert (found, [word for word in rest if word]) == (count, left.split())
    assert len(rest) == len(read.split())  # words keep their numbers


@pytest.mark.parametrize(
    ("wanted", "read", "ends", "count", "left"),
    [
        ("TAXI", "T A X I", {1, 2, 3}, 1, []),
        ("TAXI", "T A X I", {1, 3}, 0, ["T", "A", "X", "I"]),
        ("AB CD", "CD A B X", {2}, 2, ["X"]),
        ("AB AB", "A B", {1}, 1, []),
        ("A B", "AB", {1}, 0, ["AB"]),
        ("ABC", "A B C ABC", {1, 2}, 1, ["A", "B", "C"]),  # a whole word is found first
    ],
)
def test_a_word_may_go_on_where_a_line_ends(wanted, read, ends, count, left):
    found, rest = found_words(wanted.split(), read.split(), ends)
    assert (found, [word for word in rest if word]) == (count, left)
