"""Which texts a prompt asks for: every kind of quotation mark, and every mark that is none."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blip3o_grpo.rewards import RewardError
from blip3o_grpo.rewards.ocr.quotes import quoted_spans, target_texts

DATA = Path(os.environ.get("BLIP3O_GRPO_TEST_DATA", Path(__file__).parents[4] / "shared" / "data"))


@pytest.mark.parametrize(
    ("prompt", "spans"),
    [
        # plain
        ('a sign that says "TAXI"', ["TAXI"]),
        ('"OPEN" above "24 H"', ["OPEN", "24 H"]),
        ('"NO" and "NO"', ["NO", "NO"]),
        ('says"HELLO"', ["HELLO"]),
        ('says: "HELLO", twice', ["HELLO"]),
        ('写着"出口"', ["出口"]),
        ('" HELLO "', ["HELLO"]),
        ('"two\nlines"', ["two\nlines"]),
        ('"don\'t"', ["don't"]),
        ("", []),
        ("it's a baker's sign", []),
        ("says 'HELLO'", []),
        ('an empty "" and a blank "  " sign', []),
        (
            'a soft hyphen "\u00ad", a joiner "\u200d\u200b" and "A\u00adB"',
            ["A\u00adB"],
        ),  # two are invisible
        ('"" then "A"', ["A"]),
        ('"A" then ""', ["A"]),
        ('"" A" B"', ["B"]),
        ('""A and \\"" too', []),
        # other marks
        ("says “TAXI”", ["TAXI"]),
        ("ein Schild mit „TAXI“ und „BUS”", ["TAXI", "BUS"]),
        ("un panneau « TAXI »", ["TAXI"]),
        ("»TAXI« und »BUS«", ["TAXI", "BUS"]),
        ("»TAXI» ja »BUS»", ["TAXI", "BUS"]),
        ("”TAXI” och ”BUS”", ["TAXI", "BUS"]),
        ("‟TAXI” ”A“ ‟B“", ["TAXI", "A", "B"]),
        ("「出口」と『入口』", ["出口", "入口"]),
        ("｢出口｣", ["出口"]),
        ("〝出口〟 〝入口〞", ["出口", "入口"]),
        ("＂A＂", ["A"]),
        ("″HELLO″", ["HELLO"]),
        ("《书》", []),
        ("stray 」 and 』", []),
        ('“OPEN” and "24H" and 「出口」', ["OPEN", "24H", "出口"]),
        # inches
        ('a 12" ruler that says "HELLO"', ["HELLO"]),
        ('a 12″ ruler that says "HELLO"', ["HELLO"]),
        ("a 12″ ruler", []),
        ("a 12＂ ruler", []),
        ("a ″ mark", []),
        ('a ½" pipe, a 2" x 4" board, a 6" nail', []),
        ('he is 5\' 11" and holds "A"', ["A"]),
        ('12"x14" print with "HI"', ["HI"]),
        ('a 7" record "HIT 7"', ["HIT 7"]),
        ('"Room 13"', ["Room 13"]),
        ('"EST 1998" and "13"', ["EST 1998", "13"]),
        ('5" "A" 6"', ["A"]),
        ('"5″ pipe"', ["5″ pipe"]),
        ('"5" pipe"', ['5" pipe']),
        ('“5" pipe”', ['5" pipe']),
        ('66"HELLO"', ["HELLO"]),
        ('Room 12"A" and 13"B"', ["A", "B"]),
        ('一"A"', ["A"]),
        ('12\\" wide "A"', ["A"]),
        # escaped and doubled
        ('\\"HELLO\\"', ["HELLO"]),
        ('\\\\"HELLO\\\\"', ["HELLO"]),
        ('\\"A\\" and "B"', ["A", "B"]),
        ('"say \\"hi\\" now"', ['say "hi" now']),
        ("\\“A\\”", ["A"]),
        ('""HELLO""', ["HELLO"]),
        ('"""HELLO"""', ["HELLO"]),
        ('""BUS"7""', ['BUS"7']),
        ('"say ""hi"" now"', ['say "hi" now']),
        ('"A""B"', ["A", "B"]),
        ('"A B""C D" "E"', ["A B", "C D", "E"]),
        # nested and mixed
        ("“He said “hi” ok” and “A”", ["He said “hi” ok", "A"]),
        ('"He said “hi” now"', ["He said “hi” now"]),
        ('“He said "hi" now”', ['He said "hi" now']),
        ("『外「内」』", ["外「内」"]),
        ("「外「内」外」", ["外「内」外"]),
        ('“HELLO"', ["HELLO"]),
        ('"HELLO” next to "BYE"', ["HELLO", "BYE"]),
        ("“HELLO“", ["HELLO"]),
        ('“HELLO""', ["HELLO"]),
        ('“HELLO\\"', ["HELLO"]),
        ('\\"HELLO”', ["HELLO"]),
        ('“say ""hi"" now”', ['say ""hi"" now']),
        ("『A」』", ["A」"]),
        ('"The "Big" Sale"', ['The "Big" Sale']),
        ('"He said "hi" to me" and "A"', ['He said "hi" to me', "A"]),
        ('"I said "no"" and "A"', ['I said "no"', "A"]),
        ('""Yes" she said" and "A"', ['"Yes" she said', "A"]),
        ('"A" "B" "C"', ["A", "B", "C"]),
        ('"A "and" B"', ['A "and" B']),
        ('\\"The \\"Big\\" Sale\\"', ['The "Big" Sale']),
        ("「a「b「c」d」e」", ["a「b「c」d」e"]),
        ("「A 」B」C」", ["A"]),  # a bracket that closes opens nothing
        ('"A"1" C"', ["A", "C"]),  # what opens inside of straight ones has a space before, and none after
        ('"A " 1" C"', ["A", "C"]),
        ('"A "and "B"', ["A", "B"]),  # an opening mark that no closing one follows
        ('"Size: 12""', ['Size: 12"']),
        ('a 12" plate "6\' 2"" and "A"', ["6' 2\"", "A"]),
        ("‹A› und ›B‹", ["A", "B"]),
        ("❝A❞", ["A"]),
    ],
)
def test_quoted_spans(prompt, spans):
    assert quoted_spans(prompt) == spans


@pytest.mark.parametrize(
    ("prompt", "begins"),
    [
        ('one stray quote " here', '" here'),
        ('says "A', '"A'),
        ('A"', '"'),
        ('"A" "B" "C', '"C'),
        ("says “A", "“A"),
        ("「出口", "「出口"),
        ("「外「内」", "「外「内」"),
        ("「出口』", "「出口』"),
        ("«A", "«A"),
        ('「A"', '「A"'),
        ("“A」", "“A」"),
        ("„A“ and B”", "”"),  # what closes a quotation is no part of its text
        ("„A” and B“", "“"),
        ("‟A“ and B”", "”"),
        ('＂A＂ and B"', '"'),
        ('"A""', '"A""'),
        ("Room 12“A", "“A"),
        ('」A " B', '" B'),
        ('says \\"A', '\\"A'),
        ('"""A', '"""A'),
        ('"A "B" C', '"A "B" C'),
        ('"and a very long text that nobody needs to see again', '"and a very long text'),
    ],
)
def test_a_quotation_that_is_never_closed_is_refused_with_its_beginning(prompt, begins):
    with pytest.raises(RewardError) as refused:
        quoted_spans(prompt)
    assert f"prompt {prompt!r}: the quotation that begins with {begins!r} is never closed" in str(refused.value)


def test_target_text_of_the_metadata_replaces_the_quotes():
    assert target_texts('says "A"', {"target_text": "B"}) == ["B"]
    assert target_texts('says "A"', {"target_text": ["B", " C ", " "]}) == ["B", "C"]
    assert target_texts('says "A"', {"target_text": None}) == ["A"]
    assert target_texts('says "A"', {"target_text": ""}) == []
    assert target_texts('says "A"', {"target_text": ["\u200b", "\ufe0f"]}) == []
    assert target_texts('says "A"', {"target_text": []}) == []
    assert target_texts('says "A', {"target_text": 'x " y'}) == ['x " y']
    assert target_texts('says "A"', {}) == ["A"]


@pytest.mark.parametrize("wrong", [7, 0, True, {"a": "b"}, [1], ["a", None], {"a"}])
def test_a_target_text_of_another_type_is_refused(wrong):
    with pytest.raises(RewardError, match="prompt 'p': target_text must be a string or a list of strings, not"):
        target_texts("p", {"target_text": wrong})


MARKS = '"\\“”„‟«»‹›❝❞「」『』〝〞〟″＂｢｣'
plain = st.text(st.characters(exclude_categories=["Cs"], exclude_characters=MARKS), min_size=1)


@given(st.lists(plain.filter(str.strip).filter(lambda text: text[0].strip() and text[-1].strip()), max_size=4))
def test_plain_quotations_are_found_in_any_kind_of_marks(texts):
    for left, right in ('""', "“”", "„“", "«»", "»«", "‹›", "❝❞", "「」", "『』", "＂＂", "〝〟"):
        prompt = "a sign, " + " and ".join(f"{left}{text}{right}" for text in texts) + "."
        assert quoted_spans(prompt) == [text.strip() for text in texts]


def test_thousands_of_marks_take_no_time():
    start = time.process_time()
    assert len(quoted_spans('"A 1" ' * 2000)) == 2000
    assert time.process_time() - start < 2


def straight_pairs(prompt: str) -> list[str]:
    """Texts between each mark and the next, as a simple reader takes them."""
    same = str.maketrans(dict.fromkeys("“”„‟″«»＂", '"'))
    return [span.strip() for span in re.findall(r'"([^"]*)"', prompt.translate(same)) if span.strip()]


def test_the_benchmarks_prompts_are_read_as_by_a_simple_reader():
    if not DATA.is_dir():
        pytest.skip(f"the published test data is not here ({DATA}); BLIP3O_GRPO_TEST_DATA names its folder")
    prompts = (DATA / "ocr/test.txt").read_text(encoding="utf-8").splitlines()
    for name in ("text_prompts", "text_prompts_zh"):
        lines = (DATA / f"longtext/{name}.jsonl").read_text(encoding="utf-8").splitlines()
        prompts += [json.loads(line)["prompt"] for line in lines]
    assert len(prompts) == 1018 + 320
    for prompt in prompts:
        assert quoted_spans(prompt) == straight_pairs(prompt) != []
