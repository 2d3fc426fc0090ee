"""Score variants against values worked out by hand, and properties that must hold for any text."""

from __future__ import annotations

import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blip3o_grpo.rewards import RewardError
from blip3o_grpo.rewards.ocr.blocks import TextLine
from blip3o_grpo.rewards.ocr.normalise import letters
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
        ("C++&C#", "C++ & C#", 1, 1, 1, 1),  # beside a symbol a space is not held against the picture
        ("50 %OFF", "50% OFF", 1, 1, 1, 1),
        ("GRANDHOTEL", "GRAND HOTEL", 1, 1, 1, 0),
        ("E=mc2", "E=mc\u00b2", 0.8, 0, 0.8, 0),
    ],
)
def test_variants_match_scores_worked_out_by_hand(text, target, blip3o, exact, ned, word):
    got = {variant: score_text(text, target, variant) for variant in VARIANTS}
    assert got == pytest.approx({"blip3o": blip3o, "exact": exact, "ned": ned, "word": word})


@given(text=st.text(max_size=30), target=st.text(min_size=1, max_size=12).filter(letters))
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
    with pytest.raises(RewardError, match="blip3o, exact, ned, word"):
        score_lines([], ["TAXI"], "fuzzy")


def line(text, x, y, width=20, height=10, confidence=1.0) -> TextLine:
    return TextLine(text, confidence, (x, y, x + width, y + height))


def test_no_target_means_not_applicable_and_no_text_means_zero():
    assert score_lines([line("A", 0, 0)], []) is None
    assert score_lines([line("A", 0, 0)], [" "]) is None
    assert score_lines([line("A", 0, 0)], [" ", "A"]) == 1
    assert [score_lines([], targets, variant) for variant in VARIANTS for targets in (["A"], ["A", "B"])] == [0] * 8
    assert score_lines([line(" ", 0, 0)], ["A"]) == 0


def test_a_box_without_letters_in_it_changes_no_order():
    """It would stand above `B` and to the left of `C`, and so part what is one column of its own."""
    lines = [line("A", 20, 0, 60), line("C", 40, 15), line("B", 0, 45)]
    assert score_lines(lines, ["BAC"], "exact") == 1
    assert score_lines([*lines, line(" \u200b", 0, 15, 60)], ["BAC"], "exact") == 1


def test_lines_below_the_confidence_floor_are_dropped():
    lines = [line("TAXI", 0, 0, confidence=0.9), line("1", 0, 20, confidence=0.4)]
    assert score_lines(lines, ["TAXI"], "exact") == 0
    assert score_lines(lines, ["TAXI"], "exact", min_confidence=0.4) == 0
    assert score_lines(lines, ["TAXI"], "exact", min_confidence=0.41) == 1
    assert score_lines([line("A", 0, 0, confidence=0)], ["A"]) == 1


@pytest.mark.parametrize("variant", VARIANTS)
def test_several_targets_are_scored_each_and_averaged(variant):
    lines = [line("OPEN", 0, 0), line("24H", 0, 20)]
    assert score_lines(lines, ["OPEN", "24H"], variant) == 1
    assert score_lines(lines, ["OPEN", "QQQ"], variant) == 0.5


def column(x: float, *texts: str, y: float = 0) -> list[TextLine]:
    return [line(text, x, y + 15 * number) for number, text in enumerate(texts)]


PANELS = column(0, "OPEN", "DAILY") + column(40, "CLOSED", "SUNDAY")


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(
    ("lines", "targets"),
    [
        (PANELS, ["OPEN DAILY", "CLOSED SUNDAY"]),
        (PANELS, ["CLOSED SUNDAY", "OPEN DAILY"]),
        (PANELS, ["OPEN DAILY CLOSED SUNDAY"]),
        (PANELS, ["OPEN CLOSED DAILY SUNDAY"]),  # by rows
        (PANELS, ["OPEN CLOSED", "DAILY SUNDAY"]),
        (PANELS, ["OPEN", "DAILY", "CLOSED", "SUNDAY"]),
        (
            column(0, "A1", "A2") + column(40, "B1", "B2", y=5) + column(80, "C1", "C2", "C3"),
            ["A1 A2", "B1 B2", "C1 C2 C3"],
        ),
        (column(0, "GRAND", "HOTEL", "ROYAL"), ["GRAND HOTEL ROYAL"]),
        ([line("OPEN 24H", 0, 0, 60)], ["OPEN", "24H"]),  # two texts in one line
        ([line("NO NO", 0, 0)], ["NO", "NO"]),
        ([line("NOW", 0, 0), line("NO", 0, 15)], ["NO", "NOW"]),  # one target inside another
        ([line("NO", 0, 0), line("NOW", 0, 15)], ["NO", "NOW"]),
        ([line("OPEN", 0, 0), line("OPEN DAILY", 0, 15)], ["OPEN DAILY", "OPEN"]),
        (
            [line("MENU", 0, 0, 60), *column(0, "TEA", "2", y=15), *column(40, "MILK", "3", y=15)],
            ["MENU TEA 2", "MILK 3"],
        ),
        ([line("\uff2f\uff30\uff25\uff2e", 0, 0), line("50\u201360", 0, 15)], ["OPEN", "50-60"]),
        (column(0, "GRAND INTER-", "NATIONAL HOTEL"), ["GRAND INTERNATIONAL HOTEL"]),
        (column(0, "INTER-", "NATIONAL") + column(40, "T-", "SHIRTS"), ["INTERNATIONAL", "T-SHIRTS"]),
        (column(0, "\u6bcf\u65e5", "\u65b0\u9c9c"), ["\u6bcf\u65e5\u65b0\u9c9c"]),
        ([line("\u51fa\u53e3\u5165\u53e3", 0, 0)], ["\u51fa\u53e3", "\u5165\u53e3"]),  # no space between them
        (column(0, *"TAXI"), ["TAXI"]),  # letters below one another
        (column(0, *"TAXI") + column(40, *"STOP"), ["TAXI", "STOP"]),
        ([line("O", 0, 0, 20, 22), line("NCE UPON", 22, 0, 50), line("A TIME", 22, 12, 40)], ["ONCE UPON A TIME"]),
        ([line("ONE", 0, 45), line("STEP", 30, 30), line("UP", 60, 15)], ["ONE STEP UP"]),  # stairs
        ([line("ONE", 0, 0), line("STEP", 30, 4), line("DOWN", 60, 8)], ["ONE STEP DOWN"]),
    ],
)
def test_a_perfect_picture_of_several_blocks_scores_one(lines, targets, variant):
    assert score_lines(lines, targets, variant) == 1
    assert score_lines(lines[::-1], targets[::-1], variant) == 1


def test_one_block_alone_is_the_target():
    assert score_lines(PANELS, ["OPEN DAILY"]) == 1
    assert score_lines(PANELS, ["CLOSED SUNDAY"]) == 1
    assert score_lines(PANELS, ["OPEN DAI1Y"]) == 8 / 9  # a wrong letter in a panel, whatever the other one says
    assert score_lines(PANELS, ["OPEN DAILY"], "exact") == 0  # one target is compared with the whole text
    assert score_lines(PANELS, ["OPEN DAILY"], "ned") == pytest.approx(9 / 21)
    assert (
        score_lines(
            [line("MENU", 0, 0, 60), *column(0, "TEA", "2", y=15), *column(40, "MILK", "3", y=15)], ["MENU MILK 3"]
        )
        == 1
    )
    assert score_lines(column(0, "GRAND", "24"), ["GRAND 25"]) == pytest.approx(6 / 7)  # over the end of a line


def test_wrong_order_is_no_match():
    assert score_lines(column(0, "24H", "OPEN"), ["OPEN 24H"]) == 4 / 7
    assert score_lines(column(0, "24H", "OPEN"), ["OPEN 24H"], "exact") == 0


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(
    ("texts", "targets", "value"),
    [
        (["NO"], ["NO", "NO"], 1 / 2),
        (["NO", "NO"], ["NO", "NO", "NO"], 2 / 3),
        (["NO", "XY"], ["NO", "NO"], 1 / 2),
        (["GRAND HOTEL"], ["GRAND HOTEL", "GRAND HOTEL"], 1 / 2),
        (["OPEN"], ["OPEN", "open"], 1 / 2),
    ],
)
def test_each_occurrence_counts_once(texts, targets, value, variant):
    assert score_lines(column(0, *texts), targets, variant) == pytest.approx(value)


def test_a_near_miss_counts_once_too_and_goes_to_the_target_it_fits_best():
    assert score_lines([line("OPFN", 0, 0)], ["OPEN", "OPEN"]) == 0.75 / 2
    assert score_lines([line("OPFN", 0, 0)], ["OXXN", "OPEN"], "ned") == 0.75 / 2
    assert score_lines(column(0, "OPFN", "CL0SED"), ["CLOSED", "OPEN"]) == pytest.approx((0.75 + 5 / 6) / 2)
    assert score_lines(column(0, "OPFN", "CL0SED"), ["CLOSED", "OPEN"], "exact") == 0


def test_stray_text_in_a_line_costs_exact_and_ned():
    lines = column(0, "OPEN NOW", "24H")
    assert score_lines(lines, ["OPEN", "24H"], "exact") == 1 / 2
    assert score_lines(lines, ["OPEN", "24H"], "ned") == (4 / 7 + 1) / 2
    assert score_lines(lines, ["OPEN", "24H"]) == 1
    assert score_lines([line("OPENNOW", 0, 0)], ["OPEN", "NOW"], "exact") == 0  # no word ends there
    assert score_lines([line("OPENNOW", 0, 0)], ["OPEN", "NOW"]) == 1


def test_words_go_to_the_target_that_they_complete():
    lines = column(0, "GRAND HOTEL BAR")
    assert score_lines(lines, ["GRAND CAFE", "GRAND HOTEL"], "word") == 1 / 2
    assert score_lines(lines, ["GRAND HOTEL", "GRAND CAFE"], "word") == 1 / 2
    assert score_lines(lines, ["HOTEL CAFE", "BAR"], "word") == 3 / 4
    assert score_lines(lines, ["GRAND", "GRAND HOTEL"], "word") == 1 / 2  # the longer of two complete ones first


def grid(*signs: tuple[str, ...]) -> list[TextLine]:
    """Signs of several lines, three in a row."""
    places = [(100 * (number % 3), 60 * (number // 3)) for number in range(len(signs))]
    return [item for (x, y), texts in zip(places, signs, strict=True) for item in column(x, *texts, y=y)]


@pytest.mark.parametrize("variant", VARIANTS)
def test_ten_signs_in_rows_are_each_read(variant):
    signs = [("GO", "LEFT"), ("NO", "DOGS"), ("STOP",), ("WET", "PAINT", "HERE"), ("MIND", "GAPS"), ("KEEP", "OUT")]
    signs += [("NO", "CATS"), ("NOT", "NOW"), ("NO",), ("NOT",)]
    targets = [" ".join(texts) for texts in signs]
    assert score_lines(grid(*signs), targets, variant) == 1
    assert score_lines(grid(*signs[:9]), targets, variant) == pytest.approx(0.9)  # without the last NOT


@pytest.mark.parametrize("variant", VARIANTS)
def test_sixty_boxes_and_ten_targets_take_no_time(variant):
    """Clutter with as many ways down as there can be, and nothing in it that is wanted."""
    generator = random.Random(1)
    lines = []
    for row in range(20):
        wide, left, right = ("".join(generator.choices("ABCDEFGH", k=6)) for _ in range(3))
        lines += [line(wide, 0, 30 * row, 60), line(left, 0, 30 * row + 15), line(right, 40, 30 * row + 15)]
    targets = ["".join(generator.choices("ABCDEFGH", k=20)) for _ in range(10)]
    start = time.process_time()
    assert score_lines(lines, targets, variant) < 0.6
    assert time.process_time() - start < 3
