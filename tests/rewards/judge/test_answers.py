"""Answers count in exactly the form that was asked for."""

import math
import re

import pytest

from blip3o_grpo.rewards.judge.answers import (
    YES,
    YES_PROBABILITY,
    UnparseableError,
    first_token,
    labelled_numbers,
    read_transcript,
    whole_number,
)

THREE = labelled_numbers(("Consistency", "Realism"), 0, 2)


@pytest.mark.parametrize(("text", "value"), [("yes", 1.0), ("no", 0.0), (" Yes\n", 1.0), ("NO", 0.0)])
def test_yes_and_no(text, value):
    assert YES.read(text) == value


@pytest.mark.parametrize("text", ["", " ", "Yes!", "yes.", "yes, it is", "no no", "1", "true", "yes\nno", "ｙｅｓ"])
def test_anything_else_is_no_yes_and_no_no(text):
    with pytest.raises(UnparseableError):
        YES.read(text)


def test_the_probability_of_yes_is_its_share_of_both_words_over_case_and_spaces():
    told = [(" Yes", math.log(0.3)), ("yes", math.log(0.2)), ("No", math.log(0.1)), ("\nyes", -1.0), ("yes,", -1.0)]
    text = first_token(told)
    assert re.fullmatch(r"P\(yes\)=0\.5\d*, P\(no\)=0\.1\d*", text)
    assert YES_PROBABILITY.read(text) == pytest.approx(0.5 / 0.6)
    assert YES_PROBABILITY.read(first_token([("YES", 1e-9)])) == 1.0  # a server's rounding is no more than certain
    assert YES_PROBABILITY.read(first_token([("no", -3.0), ("yes", -9999.0)])) == 0.0
    assert YES_PROBABILITY.read(first_token([("no", -700.0), ("yes", -700.0)])) == 0.5


@pytest.mark.parametrize("told", [[("The", -0.1), ("Yes!", -3.0)], [("yes", -9999.0), ("no", -9999.0)]])
def test_without_either_word_there_is_no_probability(told):
    with pytest.raises(UnparseableError, match=f"first one of '{told[0][0]}', '{told[1][0]}'"):
        YES_PROBABILITY.read(first_token(told))
    with pytest.raises(UnparseableError):
        YES_PROBABILITY.read("yes")


@pytest.mark.parametrize(("text", "value"), [("0", 0), ("7", 7), (" 10\n", 10), ("-3", -3)])
def test_whole_numbers(text, value):
    assert whole_number(-3, 10).read(text) == value


@pytest.mark.parametrize(
    "text", ["", "11", "-4", "7/10", "7.0", "07", "+7", "-0", "seven", "7 of 10", "٣", "1e1", "9" * 30]
)
def test_anything_else_is_no_whole_number(text):
    with pytest.raises(UnparseableError):
        whole_number(-3, 10).read(text)


def test_numbers_with_labels():
    assert THREE.read("Consistency: 2\n\n realism : 0\n") == {"Consistency": 2, "Realism": 0}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2\n0",
        "Consistency: 2",
        "Realism: 0\nConsistency: 2",
        "Consistency: 3\nRealism: 0",
        "Consistency 2\nRealism 0",
        "Here you are:\nConsistency: 2\nRealism: 0",
        "Consistency: 2\nRealism: 0\nAesthetic Quality: 1",
        "**Consistency**: 2\nRealism: 0",
    ],
)
def test_labels_in_any_other_form_are_no_numbers(text):
    with pytest.raises(UnparseableError):
        THREE.read(text)


def test_forms_say_what_they_ask_for():
    assert (YES.words, YES.max_tokens) == ("exactly yes or no", 8)
    assert whole_number(0, 2).words == "exactly one whole number from 0 to 2"
    assert whole_number(0, 2).max_tokens == 16
    words = "exactly 2 lines, `Consistency: NUMBER`, `Realism: NUMBER`, with whole numbers from 0 to 2"
    assert (THREE.words, THREE.max_tokens) == (words, 64)


def test_a_transcript_is_any_text_but_none():
    assert read_transcript(" OPEN\n 24 h ") == "OPEN\n 24 h"
    with pytest.raises(UnparseableError):
        read_transcript(" \n")
