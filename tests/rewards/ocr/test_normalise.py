"""Texts that look the same become the same; texts that look different stay different."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blip3o_grpo.rewards.ocr.normalise import folded, letters, words
from blip3o_grpo.rewards.ocr.text_score import VARIANTS, score_text


@pytest.mark.parametrize(
    ("written", "plain"),
    [
        ("\u201cdon\u2019t stop\u201d", '"don\'t stop"'),
        ("\u2018a\u2019 \u201ab\u201b", "'a' 'b'"),
        ("\u201ea\u201f", '"a"'),
        ("\u00aba\u00bb \u2039b\u203a", "\"a\" 'b'"),
        ("\u300ca\u300d\u300eb\u300f\u301dc\u301e\u301f", '"a""b""c""'),
        ("6\u2032 2\u2033", "6' 2\""),
        ("a\u00b4b", "a'b"),
        ("\u02bbokina \u02bcn \u02b9 \u02ba \u02ee", "'okina 'n ' \" \""),
        ("\u2035x\u2036", "'x\""),
        ("WAIT\u2026 \u22ef \u2025", "WAIT... ... .."),
        ("50\u201360 km", "50-60 km"),
        ("a\u2010b\u2011c\u2012d\u2014e\u2015f\u2212g\u2043h\u02d7i", "a-b-c-d-e-f-g-h-i"),
        ("CAFE\u0301", "CAF\u00c9"),
        ("\uff21\uff42\uff11\uff01\uff0c\u3000\uffe5", "Ab1!,\u3000\u00a5"),
        ("\uff76\uff9e", "\u30ac"),  # halfwidth ka and its voicing mark
        ("\ufe50\ufe63\ufe6b", ",-@"),
        ("\ufb01rst \ufb06 \ufb00", "first st ff"),
        ("so\u00adft z\u200be\u200dr\u200fo\u2060\ufeff \u2764\ufe0f \u202eA", "soft zero \u2764 A"),
        ("\u034fa\u061cb\u115fc\u1160d\u180be\u180ff\u3164g\uffa0h\U000e0041i\u206fj\ufe00", "abcdefghij"),
        ("\u03c2", "\u03c3"),
        ("\u212b \u212a \u037e", "\u00c5 K ;"),
    ],
)
def test_spellings_of_the_same_text_are_one(written, plain):
    assert folded(written) == plain
    for variant in VARIANTS:
        assert score_text(written, plain, variant) == score_text(plain, written, variant) == 1


@pytest.mark.parametrize(
    "text",
    [
        "mc\u00b2",
        "\u00bd",
        "H\u2082O",
        "\u2122",
        "\u2460",
        "\u30fc",
        "\u300a\u300b",
        "\u3002",
        "\u00d7",
        "\u2153",
        "\u2163",
    ],
)
def test_characters_that_look_different_stay(text):
    assert folded(text) == text


def test_ascii_stays_as_it_is():
    assert folded(string.printable) == string.printable
    assert words("A b\tC\nd\u00a0e\u3000f\u2003G") == list("abcdefg")
    assert letters(" A\t`b` \u0130") == "a`b`i\u0307"
    printed = string.digits + string.ascii_lowercase + string.punctuation
    assert words(printed) == [printed]


def test_each_character_of_a_script_without_spaces_is_a_word():
    assert words("\u6bcf\u65e5\u65b0\u9c9c Bread") == ["\u6bcf", "\u65e5", "\u65b0", "\u9c9c", "bread"]
    assert words("\u30ab\u30ad\u3054 \u3005\u30fc\u3007") == list("\u30ab\u30ad\u3054\u3005\u30fc\u3007")
    assert words("A\u5c71B, \u9580\u3002!") == ["a", "\u5c71", "b,", "\u9580", "\u3002!"]
    assert words("\U00020bb7\uf900\uff76\uff9e") == ["\U00020bb7", "\u8c48", "\u30ac"]
    assert words("\uc548\ub155 \u4e00") == ["\uc548\ub155", "\u4e00"]  # Korean has spaces


def test_case_is_ignored_also_at_the_end_of_a_greek_word():
    assert (
        letters("\u039f\u0394\u039f\u03a3")
        == letters("\u03bf\u03b4\u03bf\u03c3")
        == letters("\u03bf\u03b4\u03bf\u03c2")
    )


@pytest.mark.parametrize("text", ["a \u0301", "a\uffe3", "e\t\u0308x"])
def test_an_accent_that_stands_alone_is_folded_once(text):
    assert letters(letters(text)) == letters(text)


@given(st.text())
def test_folding_twice_changes_nothing_more(text):
    assert folded(folded(text)) == folded(text)
    assert letters(letters(text)) == letters(text)
