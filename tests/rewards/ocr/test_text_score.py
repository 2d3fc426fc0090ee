"""Score variants against values worked out by hand, and properties that must hold for any text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blip3o_grpo.rewards import RewardError
from blip3o_grpo.rewards.ocr.blocks import TextLine, reading_order
from blip3o_grpo.rewards.ocr.quotes import quoted_spans, target_texts
from blip3o_grpo.rewards.ocr.text_score import VARIANTS, score_lines, score_text


@pytest.mark.parametrize(
    ("text", "target", "blip3o", "exact", "ned", "word"),
    [
        ("TAXI", "TAXI", 1, 1, 1, 1),
        ("taxi", "TAXI", 1, 1, 1, 1),
        ("T A X I", "TAXI", 1, 1, 1, 0),  # white space does not count, except between words
        ("TAX1", "TAXI", 0.75, 0, 0.75, 0),
        ("", "TAXI", 0, 0, 0, 0),
        ("MY TAXI STAND", "TAXI", 1, 0, 4 / 11, 1),  # stray text around the target is free for blip3o
        ("TAXI TAXI", "TAXI", 1, 0, 0.5, 1),
        ("TAX1 ABC", "TAXI", 0, 0, 3 / 7, 0),  # one wrong character plus three stray ones: nothing left
        ("TAX1 ABCDEFGH", "TAXI", 0, 0, 3 / 12, 0),  # the distance is capped at the target's length
        ("STOP", "STOP!", 0.8, 0, 0.8, 0),  # punctuation counts
        ("GRAND HOTEL", "GRAND HOTEL", 1, 1, 1, 1),
        ("GRAND", "GRAND HOTEL", 0.5, 0, 0.5, 0.5),
        ("HOTEL GRAND", "GRAND HOTEL", 0, 0, 0, 1),  # edit distance 10 of 10: nothing lines up
        ("NEW YORK", "NEW NEW YORK", 0.7, 0, 0.7, 2 / 3),  # each occurrence is used once
    ],
)
def test_variants_match_scores_worked_out_by_hand(text, target, blip3o, exact, ned, word):
    got = {variant: score_text(text, target, variant) for variant in VARIANTS}
    assert got == pytest.approx({"blip3o": blip3o, "exact": exact, "ned": ned, "word": word})


@given(text=st.text(max_size=30), target=st.text(min_size=1, max_size=12).filter(lambda t: "".join(t.lower().split())))
def test_every_variant_stays_in_the_unit_interval_and_rewards_the_target_itself(text, target):
    for variant in VARIANTS:
        assert 0 <= score_text(text, target, variant) <= 1
        assert score_text(target, target, variant) == 1
    assert score_text(text, target, "exact") <= score_text(text, target, "ned") <= 1
    assert score_text(text, target, "exact") <= score_text(text, target, "blip3o")


@given(before=st.text(max_size=10), target=st.text("ABC", min_size=1, max_size=6), after=st.text("XYZ 1", max_size=10))
def test_compatible_score_ignores_text_around_the_target(before, target, after):
    assert score_text(f"{before} {target} {after}", target) == 1


def test_blank_target_and_unknown_variant_are_refused():
    with pytest.raises(RewardError, match="blank"):
        score_text("TAXI", "  ")
    with pytest.raises(RewardError, match="blip3o, exact, ned, word"):
        score_text("TAXI", "TAXI", "fuzzy")


@pytest.mark.parametrize(
    ("prompt", "spans"),
    [
        ('a sign that says "TAXI"', ["TAXI"]),
        ("a sign that says \u201cTAXI\u201d", ["TAXI"]),
        ("ein Schild mit \u201eTAXI\u201c", ["TAXI"]),
        ("un panneau \u00ab TAXI \u00bb", ["TAXI"]),
        ('"OPEN" above "24 H"', ["OPEN", "24 H"]),
        ("it's a baker's sign", []),
        ('an empty "" and a blank "  " sign', []),
        ('one stray quote " here', []),
    ],
)
def test_quoted_spans(prompt, spans):
    assert quoted_spans(prompt) == spans


def test_target_text_of_the_metadata_replaces_the_quotes():
    assert target_texts('says "A"', {"target_text": "B"}) == ["B"]
    assert target_texts('says "A"', {"target_text": ["B", " C "]}) == ["B", "C"]
    assert target_texts('says "A"', {"target_text": None}) == ["A"]
    assert target_texts('says "A"', {"target_text": ""}) == []
    with pytest.raises(RewardError, match="target_text must be a string"):
        target_texts("p", {"target_text": 7})


def line(text, x, y, width=20, height=10, confidence=1.0) -> TextLine:
    return TextLine(text, confidence, (x, y, x + width, y + height))


def test_lines_are_joined_row_by_row_from_the_left():
    lines = [line("D", 30, 41), line("B", 30, 3), line("C", 0, 40), line("A", 0, 0)]
    assert [item.text for item in reading_order(lines)] == ["A", "B", "C", "D"]
    assert score_lines(lines, ["abcd"], "exact") == 1


def test_no_target_means_not_applicable_and_no_text_means_zero():
    assert score_lines([line("A", 0, 0)], []) is None
    assert score_lines([line("A", 0, 0)], [" "]) is None
    assert score_lines([], ["A"]) == 0


def test_lines_below_the_confidence_floor_are_dropped():
    lines = [line("TAXI", 0, 0, confidence=0.9), line("1", 0, 20, confidence=0.4)]
    assert score_lines(lines, ["TAXI"], "exact") == 0
    assert score_lines(lines, ["TAXI"], "exact", min_confidence=0.5) == 1


@pytest.mark.parametrize("variant", VARIANTS)
def test_several_targets_are_scored_each_and_averaged(variant):
    lines = [line("OPEN", 0, 0), line("24H", 0, 20)]
    assert score_lines(lines, ["OPEN", "24H"], variant) == 1
    assert score_lines(lines, ["OPEN", "QQQ"], variant) == pytest.approx(0.5, abs=0.01)
