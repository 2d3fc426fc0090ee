"""GenEval records: the official format is read, and every mistake is named with its key."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from blip3o_grpo.rewards import RewardError
from blip3o_grpo.rewards.geneval import TAGS, parse_record

OFFICIAL = Path(__file__).parents[4] / "shared" / "data" / "geneval" / "evaluation_metadata.jsonl"


def test_a_record_is_read():
    record = parse_record(
        {
            "tag": "position",
            "prompt": "a photo of a dog right of a teddy bear",
            "include": [{"class": "teddy bear", "count": 1}, {"class": "dog", "count": 1, "position": ["right of", 0]}],
        }
    )
    assert record.tag == "position"
    assert record.include[1].position == ("right of", 0)
    assert record.exclude == ()


def test_every_official_record_is_read():
    if not OFFICIAL.is_file():
        pytest.skip("the official evaluation_metadata.jsonl is not beside this checkout")
    records = [parse_record(json.loads(line)) for line in OFFICIAL.read_text(encoding="utf-8").splitlines()]
    assert len(records) == 553
    assert {record.tag for record in records} == set(TAGS)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"include": []}, "`include` must hold at least one clause"),
        ({"include": "dog"}, "`include` must be a list"),
        ({"include": ["dog"]}, r"`include\[0\]` must be an object"),
        ({"include": [{"count": 1}]}, r"`include\[0\]`: the key 'class' is missing"),
        ({"include": [{"class": "dog"}]}, r"`include\[0\]`: the key 'count' is missing"),
        ({"include": [{"class": "dgo", "count": 1}]}, "unknown class 'dgo'; did you mean 'dog'?"),
        ({"include": [{"class": "dog", "count": 0}]}, "count` is 0"),
        ({"include": [{"class": "dog", "count": -2}]}, "count` is -2"),
        ({"include": [{"class": "dog", "count": 1.0}]}, "count` is 1.0"),
        ({"include": [{"class": "dog", "count": True}]}, "count` is True"),
        ({"include": [{"class": "dog", "count": 1, "color": "rde"}]}, "unknown colour 'rde'; did you mean 'red'?"),
        ({"include": [{"class": "dog", "count": 1, "colour": "red"}]}, "unknown key 'colour'; did you mean 'color'?"),
        ({"include": [{"class": "dog", "count": 1, "position": "left of"}]}, r"must be \[relation, index"),
        ({"include": [{"class": "dog", "count": 1, "position": ["left of", 0]}]}, "refers to itself"),
        (
            {"include": [{"class": "cat", "count": 1}, {"class": "dog", "count": 1, "position": ["left of", 1]}]},
            "refers to itself; it must refer to one of the clauses 0 to 0",
        ),
        (
            {"include": [{"class": "cat", "count": 1}, {"class": "dog", "count": 1, "position": ["left of", 5]}]},
            "refers to clause 5",
        ),
        (
            {"include": [{"class": "cat", "count": 1}, {"class": "dog", "count": 1, "position": ["left of", -1]}]},
            "refers to clause -1",
        ),
        (
            {"include": [{"class": "cat", "count": 1}, {"class": "dog", "count": 1, "position": ["leftof", 0]}]},
            "unknown relation 'leftof'; did you mean 'left of'?",
        ),
        ({"include": [{"class": "dog", "count": 1}], "exclude": [{"class": "dog", "count": 0}]}, r"exclude\[0\].count"),
        (
            {"include": [{"class": "dog", "count": 1}], "exclude": [{"class": "dog", "count": 2, "color": "red"}]},
            r"`exclude\[0\]`: unknown key 'color'",
        ),
        ({"exclude": [{"class": "dog", "count": 2}]}, "`include` must hold at least one clause"),
        ({"include": [{"class": "dog", "count": 1}], "tag": 3}, "`tag` must be text"),
    ],
)
def test_mistakes_are_named(metadata, message):
    with pytest.raises(RewardError, match=message.replace("?", r"\?")):
        parse_record(metadata, class_names=("dog", "cat"))
