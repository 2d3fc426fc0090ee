"""Made-up prompts, targets and pictures of text: what every score and every reading of a prompt must keep to.

Each test stops making up examples after `SECONDS`; what it tried until then counts.
"""

from __future__ import annotations

import random
import time
import unicodedata

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from blip3o_grpo.rewards import RewardError, find_reward
from blip3o_grpo.rewards.ocr.blocks import TextLine, reading_orders
from blip3o_grpo.rewards.ocr.normalise import letters
from blip3o_grpo.rewards.ocr.quotes import quoted_spans, target_texts
from blip3o_grpo.rewards.ocr.text_score import VARIANTS, score_lines, score_text

SECONDS = 4.0
often = settings(
    max_examples=150, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
MARKS = "\"“”„‟″«»‹›❝❞「」『』〝〞〟＂｢｣\\'’ 12½.\n"
words = st.text("ABCDEabz019é&+!.…–’漢ﬁ²", min_size=1, max_size=5)
phrases = st.lists(words, min_size=1, max_size=3).map(" ".join)
boxes = st.tuples(*[st.integers(0, 120)] * 2, *[st.integers(0, 60)] * 2).map(
    lambda box: (box[0], box[1], box[0] + box[2], box[1] + box[3])
)
pictures = st.lists(st.builds(TextLine, phrases | st.text(max_size=6), st.floats(0, 1), boxes), max_size=6)


@pytest.fixture(autouse=True)
def budget():
    """Gives `spent`, which ends the making up of examples once the test has had its time."""
    ends = time.monotonic() + SECONDS
    return lambda: time.monotonic() > ends


def sure(text: str, box: tuple[float, float, float, float] = (0, 0, 50, 10)) -> TextLine:
    return TextLine(text, 1.0, box)


@often
@given(phrases, st.sampled_from(VARIANTS), boxes)
def test_a_perfect_picture_of_one_line_scores_one(budget, target, variant, box):
    if budget():
        return
    assert score_lines([sure(target, box)], [target], variant) == score_text(target, target, variant) == 1
    for form in ("NFC", "NFD"):
        assert score_lines([sure(unicodedata.normalize(form, target).lower())], [target], variant) == 1


@often
@given(
    pictures, st.lists(phrases, min_size=1, max_size=4), st.sampled_from(VARIANTS), st.randoms(use_true_random=False)
)
def test_any_picture_scores_in_the_unit_interval_and_no_order_matters(budget, lines, targets, variant, generator):
    if budget():
        return
    value = score_lines(lines, targets, variant)
    assert 0 <= value <= 1
    shuffled = generator.sample(lines, len(lines))
    assert score_lines(shuffled, targets, variant) == pytest.approx(value)
    assert score_lines(lines, generator.sample(targets, len(targets)), variant) == pytest.approx(value)


@often
@given(pictures, phrases)
def test_columns_never_cost_what_reading_by_rows_gives(budget, lines, target):
    """The paper's score of the whole text, row by row, is the least that a picture gets."""
    if budget():
        return
    rows = reading_orders(lines)[0][0]
    text = " ".join(lines[index].text for index in rows)
    for variant in ("blip3o", "exact", "ned"):
        assert score_lines(lines, [target], variant) >= score_text(text, target, variant)


@often
@given(st.lists(st.lists(words, min_size=1, max_size=4), min_size=1, max_size=4), st.sampled_from(VARIANTS), st.data())
def test_panels_side_by_side_are_perfect_for_their_texts(budget, panels, variant, data):
    """Each panel is a column of words at its own height; each target one panel's text."""
    if budget():
        return
    lines = []
    for number, panel in enumerate(panels):
        top = data.draw(st.integers(0, 20))
        lines += [sure(word, (80 * number, top + 14 * row, 80 * number + 50, top + 14 * row + 10)) for row, word in
                  enumerate(panel)]  # fmt: skip
    targets = [" ".join(panel) for panel in panels]
    joined = [letters(target) for target in targets]
    assume(
        not any(a in b + c for i, a in enumerate(joined) for j, b in enumerate(joined) for c in ["", *joined] if i != j)
    )
    assert score_lines(lines, targets, variant) == 1


@often
@given(phrases, st.integers(2, 4), st.integers(0, 4), st.sampled_from(VARIANTS))
def test_a_text_that_is_wanted_more_often_than_it_is_there_scores_its_share(budget, target, wanted, there, variant):
    if budget():
        return
    lines = [sure(target, (0, 20 * row, 50, 20 * row + 10)) for row in range(there)]
    assert score_lines(lines, [target] * wanted, variant) == pytest.approx(min(1, there / wanted))


@often
@given(st.text(MARKS + "AB", max_size=25) | st.text(max_size=25))
def test_any_prompt_is_read_or_refused_with_its_reason(budget, prompt):
    if budget():
        return
    try:
        spans = quoted_spans(prompt)
    except RewardError as error:
        assert repr(prompt) in str(error) and "never closed" in str(error) and "\n" not in str(error)
    else:
        assert all(span == span.strip() != "" for span in spans)
        assert spans == [] or any(mark in prompt for mark in MARKS[:22])


@often
@given(
    phrases,
    st.sampled_from(["“”", "„“", "«»", "‹›", "「」", '""']),
    st.sampled_from(["a 12{q} ruler", "it's", "6' 2{q}", "§"]),
)
def test_a_quotation_after_any_other_marks_is_found(budget, target, marks, before):
    if budget():
        return
    before = before.format(q='"')
    assert quoted_spans(f"{before} with {marks[0]}{target}{marks[1]} on it") == [target]


@often
@given(st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.lists(st.none() | st.text(max_size=5)))
def test_any_target_text_is_taken_or_refused(budget, wanted):
    if budget():
        return
    try:
        texts = target_texts("p", {"target_text": wanted})
    except RewardError as error:
        assert "target_text must be a string or a list of strings" in str(error)
    else:
        assert all(isinstance(text, str) and text.strip() == text != "" for text in texts)


@often
@given(st.text(min_size=1, max_size=6))
def test_any_target_passes_the_check_or_its_letters_are_named(budget, target):
    if budget():
        return
    try:
        find_reward("ocr").check_prompt("p", {"target_text": target}, {})
    except RewardError as error:
        assert "cannot read" in str(error)
    else:
        wanted = letters(target)
        assert not wanted or score_lines([sure(target)], [target]) == 1


def test_a_picture_full_of_clutter_takes_little_time():
    generator = random.Random(2)
    lines = [
        sure("".join(generator.choices("ABCDE ", k=9)), (x, y, x + 60, y + 10))
        for x, y in ((generator.randrange(900), generator.randrange(900)) for _ in range(120))
    ]
    targets = ["".join(generator.choices("ABCDE", k=20)) for _ in range(8)]
    start = time.process_time()
    for variant in VARIANTS:
        assert 0 <= score_lines(lines, targets, variant) <= 1
    assert time.process_time() - start < 8
