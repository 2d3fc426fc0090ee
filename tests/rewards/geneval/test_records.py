"""GenEval records: the official format is read, and every mistake is named with its key."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from blip3o_grpo.prompt_data.geneval_prompts import generate
from blip3o_grpo.rewards import RewardError
from blip3o_grpo.rewards.detectors.coco import COCO_NAMES, GENEVAL_NAMES, SYNONYMS, nearest_class
from blip3o_grpo.rewards.geneval import TAGS, is_record, parse_record
from blip3o_grpo.rewards.geneval.records import TAG_TABLE, tag_warning
from blip3o_grpo.rewards.geneval.reward import GenEvalReward

OFFICIAL = Path(__file__).parents[4] / "shared" / "data" / "geneval" / "evaluation_metadata.jsonl"


def dog(count=1, name="dog", **more):
    return {"class": name, "count": count, **more}


def cat(*position, **more):
    return dog(name="cat", **more, **({"position": list(position)} if position else {}))


def test_metadata_with_one_of_both_keys_is_meant_as_a_record():
    assert is_record({"include": []}) and is_record({"exclude": []}) and not is_record({"tag": "counting"})


def test_tags_have_their_published_titles_in_order():
    assert TAGS == ("single_object", "two_object", "counting", "colors", "position", "color_attr")
    titles = ["Single object", "Two objects", "Counting", "Colors", "Position", "Color attribution"]
    assert [TAG_TABLE.title(tag) for tag in TAGS] == titles


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
        ({"include": 5}, "`include` must be a list of clauses, found 5"),
        ({"include": [{"class": ["dog"], "count": 1}]}, r"`include\[0\].class`: a class must be text, found \['dog'\]"),
        (
            {"include": [{"class": "dog", "count": 1, "color": 3}]},
            r"`include\[0\].color`: a colour must be text, found 3",
        ),
        (
            {"include": [{"class": "dog", "count": 1, 3: 4}]},
            r"`include\[0\]`: unknown key 3; known: class, count, color",
        ),
        ({"include": [dog(), cat(None, 0)]}, r"`include\[1\].position`: a relation must be text, found None"),
        (
            {"include": [dog(), cat(*"ab", "c")]},
            r"must be \[relation, index of the target clause\], found \['a', 'b', 'c'",
        ),
        ({"include": [dog(), dog(position="ab")]}, r"must be \[relation, index of the target clause\], found 'ab'"),
        ({"include": [dog(), dog(position=7)]}, r"must be \[relation, index of the target clause\], found 7"),
        ({"include": [dog(), cat("left of", False)]}, "refers to clause False; it must refer to"),
        ({"include": [dog(), cat("left of", 0.0)]}, "refers to clause 0.0; it must refer to"),
        ({"include": [dog(), cat("left of", "0")]}, "refers to clause '0'; it must refer to"),
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
        (
            {"include": [{"class": "dog", "count": 1, "position": ["left of", 0]}]},
            "refers to itself; it must refer to an earlier clause, and there is none$",
        ),
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


def test_any_class_is_one_where_none_are_named_but_it_must_be_text():
    assert parse_record({"include": [dog(name="unicorn")]}).include[0].class_name == "unicorn"
    with pytest.raises(RewardError, match="a class must be text, found 3"):
        parse_record({"include": [dog(name=3)]})


@pytest.mark.parametrize(("number", "end"), [(12, "; known: " + ", ".join("abcdefghijkl")), (13, "'unicorn'")])
def test_the_known_names_are_listed_where_they_are_few(number, end):
    with pytest.raises(RewardError, match=f"{end}$"):
        parse_record({"include": [dog(name="unicorn")]}, tuple("abcdefghijklm"[:number]))


IMPOSSIBLE = [
    ([dog(color="red"), dog(color="blue")], [], r"include\[1\]` asks for a blue dog, but `include\[0\]` for a red one"),
    ([dog(3, color="red"), cat(), dog(color="blue")], [], r"include\[2\]` asks for a blue dog"),
    ([dog(), dog(color="red"), dog(color="blue")], [], r"include\[2\]` asks for a blue dog, but `include\[1\]`"),
    ([dog(17)], [], r"include\[0\].count` is 17; at most 16 objects"),
    ([cat(), dog(1000)], [], r"include\[1\].count` is 1000"),
    ([dog(2)], [dog(2)], r"exclude\[0\]` forbids 2 dog or more, but `include` asks for 2; the least .* is 3"),
    ([dog(3)], [dog(1)], "the least that can be forbidden is 4"),
    ([dog(3), dog(1)], [cat(), dog(2)], r"exclude\[1\]` forbids 2 dog or more, but `include` asks for 3"),
    ([dog(), dog(3)], [dog(3)], "asks for 3; the least that can be forbidden is 4"),
    (
        [dog(), dog(position=["left of", 0])],
        [],
        "asks for a dog left of a dog: both clauses look at the same",
    ),
    ([dog(2), dog(position=["above", 0])], [], "a dog above a dog"),
    (
        [dog(), cat("left of", 0), cat("right of", 0)],
        [],
        r"include\[2\].position` asks for a cat right of a dog",
    ),
    ([dog(), cat("above", 0), cat("below", 0)], [], "a cat below a dog, which the clauses before it rule out"),
    (
        [dog(), cat("left of", 0), dog(position=["left of", 1])],
        [],
        "asks for a dog left of a cat",
    ),
    (
        [dog(), cat("right of", 0), dog(name="cow", position=["right of", 1]), dog(position=["right of", 2])],
        [],
        r"include\[3\].position` asks for a dog right of a cow",
    ),
    (
        [dog(), cat("below", 0), dog(name="cow", position=["above", 0]), cat("above", 2)],
        [],
        r"include\[3\].position` asks for a cat above a cow",
    ),
]


@pytest.mark.parametrize(("include", "exclude", "message"), IMPOSSIBLE)
def test_what_no_picture_can_satisfy_is_refused_with_the_reason(include, exclude, message):
    with pytest.raises(RewardError, match=message):
        parse_record({"tag": "position", "include": include, "exclude": exclude})


@pytest.mark.parametrize(
    ("include", "exclude"),
    [
        ([dog(16)], [dog(17)]),
        ([dog(2)], [dog(3)]),
        ([dog()], [cat()]),
        ([dog(color="red"), dog(2, color="red"), dog()], []),
        ([dog(color="red"), cat(color="blue")], []),
        ([dog(), cat("left of", 0), cat("above", 0)], []),
        ([dog(), cat("left of", 0), dog(position=["below", 1])], []),
        ([dog(), cat("left of", 0), dog(position=["right of", 1])], []),
        ([dog(), cat("left of", 0), dog(name="cow", position=["left of", 0]), cat("right of", 2)], []),
    ],
)
def test_what_a_picture_can_hold_is_taken(include, exclude):
    """Near the border: a step further in any of them is refused above."""
    record = parse_record({"tag": "position", "include": include, "exclude": exclude})
    assert (len(record.include), len(record.exclude)) == (len(include), len(exclude))


def test_our_own_prompts_are_taken_without_a_warning(recwarn):
    files = sorted((Path(__file__).parents[3] / "configs/prompts").glob("*.jsonl"))
    lines = [json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    ours = [line for line in lines if is_record(line)] + generate(1000, seed=0)
    assert len(ours) > 1900
    for line in ours:
        detector = "transformers" if line["include"][0]["class"] in GENEVAL_NAMES else "shapes"
        GenEvalReward.check_prompt(line["prompt"], line, detector=detector)
    # Ours are plain ones; what an earlier test left open is warned of whenever Python collects it.
    assert not [warning for warning in recwarn if warning.category is UserWarning]


@pytest.mark.parametrize(
    ("tag", "meant"),
    [("Counting", "counting"), ("COLORS", "colors"), ("two object", "two_object"), (" color-attr ", "color_attr")],
)
def test_a_tag_in_another_spelling_is_refused(tag, meant):
    """`counting` has a threshold of its own; it must not be lost silently."""
    with pytest.raises(RewardError, match=f"`tag` is '{tag}'; did you mean '{meant}'"):
        parse_record({"tag": tag, "include": [dog()]})


@pytest.mark.parametrize(
    ("tag", "words"),
    [
        ("countng", "unknown GenEval `tag` 'countng': .* did you mean 'counting'?"),
        ("Colour", "did you mean 'colors'?"),
        ("shapes of mine", "the official ones are single_object, two_object, counting, colors, position, color_attr"),
        (None, "a GenEval record has no `tag`: it is scored as all kinds of prompts but `counting`$"),
    ],
)
def test_an_unknown_tag_is_warned_of(tag, words):
    metadata = {"include": [dog()]} | ({} if tag is None else {"tag": tag})
    with pytest.warns(UserWarning, match=words.replace("?", r"\?")):
        GenEvalReward.check_prompt("a dog", metadata)
    assert all(tag_warning(known) is None for known in TAGS)


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("mouse", "computer mouse"), ("television", "tv"), ("sofa", "couch"), ("remote", "tv remote"),
        ("keyboard", "computer keyboard"), ("cellphone", "cell phone"), ("Phone", "cell phone"), ("bikes", "bicycle"),
        ("plane", "airplane"), ("aeroplane", "airplane"), ("motorbike", "motorcycle"), ("table", "dining table"),
        ("plant", "potted plant"), ("fridge", "refrigerator"), ("doughnut", "donut"), ("hot-dog", "hot dog"),
        ("Hair_Dryer", "hair drier"), ("football", "sports ball"), ("ball", "sports ball"), ("glasses", "wine glass"),
        ("people", "person"), ("woman", "person"), ("TV", "tv"), ("Dogs", "dog"), ("dgo", "dog"), ("cuop", "cup"),
        ("traffic  light", "traffic light"), ("mice", "computer mouse"), ("elephnt", "elephant"),
    ],
)  # fmt: skip
def test_a_class_by_another_name_is_understood(word, name):
    """What it means, not what it is spelt like: a sofa is no boat."""
    with pytest.raises(RewardError, match=f"unknown class '{word}'; did you mean '{name}'"):
        parse_record({"tag": "counting", "include": [dog(name=word)]}, GENEVAL_NAMES)


def test_words_belong_to_one_class_and_are_none_themselves():
    words = [word for others in SYNONYMS.values() for word in others.split(", ")]
    assert len(set(words)) == len(words) and not set(words) & set(COCO_NAMES)
    assert set(SYNONYMS) <= set(COCO_NAMES)
    assert all(nearest_class(word, GENEVAL_NAMES) for word in (*words, *COCO_NAMES, *GENEVAL_NAMES))
    assert all(nearest_class(word, COCO_NAMES) for word in (*words, *COCO_NAMES, *GENEVAL_NAMES))
    assert nearest_class("unicorn", COCO_NAMES) is None
    assert nearest_class("sofa", ("circle", "star")) is None
