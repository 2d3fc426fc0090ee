"""Words broken at the end of a line, worked out by hand."""

from __future__ import annotations

import pytest

from blip3o_grpo.rewards.ocr.line_ends import mended


@pytest.mark.parametrize(
    ("texts", "targets", "expected"),
    [
        (["INTER-", "NATIONAL"], ["INTERNATIONAL"], ["international", ""]),
        (["A INTER-", "NATIONAL B"], ["a international b"], ["a international", "b"]),
        (["INTER\u2010", "NATIONAL"], ["International"], ["international", ""]),
        (["IN-", "TER-", "NATIONAL X"], ["INTERNATIONAL X"], ["international", "", "x"]),
        (["CLOSED", "INTER-", "NATIONAL B C"], ["INTERNATIONAL"], ["CLOSED", "international", "b c"]),
        (["INTER-", "", "NATIONAL"], ["INTERNATIONAL"], ["INTER-", "", "NATIONAL"]),  # nothing follows
        (["T-", "SHIRT"], ["TSHIRT"], ["tshirt", ""]),
        (["T-", "SHIRT"], ["T-SHIRT"], ["T-", "SHIRT"]),
        (["T-", "SHIRT"], ["TSHIRT", "T-SHIRT"], ["T-", "SHIRT"]),
        (["T-", "SHIRT SALE"], ["TSHIRT", "T-SHIRT"], ["T-", "SHIRT SALE"]),
        (["T-", "SHIRT"], ["SHIRT"], ["T-", "SHIRT"]),
        (["INTER-", "NATIONAL"], ["INTERNATIONALE"], ["INTER-", "NATIONAL"]),
        (["INTER-"], ["INTER"], ["INTER-"]),
        (["INTER-", "X NATIONAL"], ["INTERNATIONAL"], ["INTER-", "X NATIONAL"]),
        (["INTER", "NATIONAL"], ["INTERNATIONAL"], ["INTER", "NATIONAL"]),  # no hyphen: letters are joined anyway
        (["INTER", "NATIONAL"], ["INTENATIONAL"], ["INTER", "NATIONAL"]),  # no letter is taken for a hyphen
        (["IN-", "TER", "NATIONAL"], ["INTENATIONAL"], ["IN-", "TER", "NATIONAL"]),
        (["5-", "6"], ["56"], ["5-", "6"]),
        (["-", "A"], ["A"], ["-", "A"]),
        (["IN-", "TER- X", "NATIONAL"], ["INTERNATIONAL"], ["IN-", "TER- X", "NATIONAL"]),
        ([], ["A"], []),
    ],
)
def test_a_broken_word_becomes_whole_where_a_target_has_it_whole(texts, targets, expected):
    assert mended(texts, [tuple(range(len(texts)))], targets) == expected


def test_the_next_line_is_that_of_any_order():
    texts = ["INTER-", "CLOSED", "NATIONAL", "SUNDAY"]
    assert mended(texts, [(0, 1, 2, 3), (0, 2, 1, 3)], ["INTERNATIONAL"]) == ["international", "CLOSED", "", "SUNDAY"]
    assert mended(texts, [(0, 1, 2, 3)], ["INTERNATIONAL"]) == texts
