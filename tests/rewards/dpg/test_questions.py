"""DPG-Bench's question file: what it says, and every damage in one line with its place."""

import pytest

from blip3o_grpo.configs import ConfigError
from blip3o_grpo.rewards import RewardError
from blip3o_grpo.rewards.dpg.questions import COLUMNS, DPGQuestion, as_metadata, circular, questions_of, read_questions

HEADER = ",".join(COLUMNS)
DOG = (
    'dog1,"A dog, brown, on a red mat",,1,0,entity,whole,entity - whole (dog),Is there a dog?\n'
    'dog1,"A dog, brown, on a red mat",,2,1,attribute,color,"attribute - color (dog, brown)",Is the dog brown?\n'
    'dog1,"A dog, brown, on a red mat",,3,"1, 2",relation,spatial,relation - spatial (on),"Is it, really, on it?"\n'
)
CAT = "cat-2,A cat,,1,0,Entity,whole,entity - whole (cat),Is there a cat?\n"


def read(rows, header=HEADER, **more):
    return read_questions(f"{header}\n{rows}", "dpg.csv", **more)


def test_items_and_their_questions():
    items, left_out = read(DOG + CAT)
    assert [item.id for item in items] == ["dog1", "cat-2"] and left_out == []
    assert items[0].text == "A dog, brown, on a red mat"
    assert items[0].questions == (
        DPGQuestion(1, (), "entity", "Is there a dog?"),
        DPGQuestion(2, (1,), "attribute", "Is the dog brown?"),
        DPGQuestion(3, (1, 2), "relation", "Is it, really, on it?"),
    )
    assert items[1].questions == (DPGQuestion(1, (), "entity", "Is there a cat?"),)


def test_the_order_of_columns_and_further_ones_do_not_matter():
    names = ["more", *reversed(COLUMNS)]
    rows = "x,Is there a cat?,t,whole,entity,0,1,,A cat,cat\n\n"
    items, _ = read(rows, ",".join(names))
    assert items[0].text == "A cat" and items[0].questions[0].text == "Is there a cat?"


def test_the_official_scripts_skipped_row_is_an_option():
    """Its loop passes over the first data row; questions that depend on it make the whole item fail there."""
    items, left_out = read(DOG + CAT, skip_first_row=True)
    assert [item.id for item in items] == ["cat-2"] and left_out == ["dog1"]
    free = CAT + CAT.replace(",1,0,", ",2,0,") + DOG
    items, left_out = read(free, skip_first_row=True)
    assert [len(item.questions) for item in items] == [1, 3] and left_out == []
    assert items[0].questions[0].id == 2


@pytest.mark.parametrize(
    ("rows", "header", "message"),
    [
        (
            CAT,
            HEADER.replace("dependency", "dependencies"),
            "lacks the column 'dependency' .*; 'dependencies' is not it",
        ),
        (CAT, "a,b", "lacks the column 'item_id' .*; it has a, b"),
        (CAT, "", "lacks the column 'item_id'"),
        (CAT, HEADER + ",text", "has the column 'text' twice"),
        ("", HEADER, "dpg.csv: holds no questions"),
        (CAT.replace("cat-2", ""), HEADER, "dpg.csv:2: item_id is missing"),
        (CAT.replace("cat-2", "a/b"), HEADER, "dpg.csv:2: item_id is 'a/b'"),
        (DOG + CAT + DOG, HEADER, "dpg.csv:6: item_id 'dog1' appeared before other items"),
        (CAT + CAT, HEADER, "dpg.csv:3: item 'cat-2' has proposition_id 1 twice"),
        (CAT.replace(",1,0,", ",one,0,"), HEADER, "dpg.csv:2: proposition_id is 'one'"),
        (
            CAT.replace(",1,0,", ",12345678901,0,"),
            HEADER,
            "'12345678901'; it must be whole numbers of at most 9 digits",
        ),
        (CAT.replace(",1,0,", ",0,0,"), HEADER, "dpg.csv:2: proposition_id is 0, which means none in the column dep"),
        (DOG.replace('mat",,3', 'rug",,3'), HEADER, "dpg.csv:4: item 'dog1' has another text than in its row before"),
        (CAT.replace(",1,0,", ",1,,"), HEADER, "dpg.csv:2: dependency is ''"),
        (CAT.replace(",1,0,", ',1,"0,x",'), HEADER, "dpg.csv:2: dependency is 'x'"),
        (CAT.replace(",1,0,", ",1,7,"), HEADER, "question 1 of item 'cat-2' depends on 7, which is no question of it"),
        (DOG + CAT.replace(",1,0,", ",1,7,"), HEADER, "question 1 of item 'cat-2' depends on 7"),
        (CAT.replace("Is there a cat?", ""), HEADER, "dpg.csv:2: question_natural_language is missing"),
        (CAT.replace("Entity", ""), HEADER, "dpg.csv:2: category_broad is missing"),
        (CAT.replace("A cat", ""), HEADER, "dpg.csv:2: item 'cat-2' has no text to draw"),
        (CAT.replace(",whole", ""), HEADER, "dpg.csv:2: the row has 8 values, the header 9"),
        (CAT.replace("A cat", '"A cat'), HEADER, "not valid CSV"),
    ],
)
def test_damage_is_told_with_its_place(rows, header, message):
    with pytest.raises(ConfigError, match=message) as error:
        read(rows, header)
    assert "\n" not in str(error.value) and str(error.value).startswith("dpg.csv")


def test_only_the_first_item_may_lose_its_parent():
    with pytest.raises(ConfigError, match="question 1 of item 'cat-2' depends on 7"):
        read(DOG + CAT.replace(",1,0,", ",1,7,"), skip_first_row=True)
    with pytest.raises(ConfigError, match="holds no item with all its questions"):
        read(DOG, skip_first_row=True)
    with pytest.raises(ConfigError, match="holds no questions"):
        read(CAT, skip_first_row=True)


def test_an_items_text_may_stand_in_its_first_row_alone():
    items, _ = read(DOG.replace('"A dog, brown, on a red mat",,2', ",,2"))
    assert items[0].text == "A dog, brown, on a red mat" and len(items[0].questions) == 3


@pytest.mark.parametrize(
    ("parents", "turning"),
    [
        (((), (1,), (1, 2)), False),
        (((3,), (), ()), False),  # a parent further down is no circle
        (((1,), ()), True),
        (((2,), (1,)), True),
        (((), (1, 4), (2,), (3,)), True),
    ],
)
def test_circles_of_questions_are_seen(parents, turning):
    questions = [DPGQuestion(number, of, "entity", "?") for number, of in enumerate(parents, start=1)]
    assert circular(questions) is turning


def test_metadata_hold_the_questions():
    items, _ = read(DOG)
    assert questions_of(as_metadata(items[0])) == items[0].questions


BAD_IDS = ([1], True, "1", 1.0, 0, None)
BAD_PARENTS = (0, None, "", [[1]], [0], [True], ["1"])
ENTRY = {"id": 1, "parents": [], "category": "entity", "question": "Is there a cat?"}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "must be a list of questions"),
        ("yes", "must be a list of questions"),
        ([1], r"`dpg\[0\]` must have the keys id, parents, category, question"),
        ([{**ENTRY, "more": 1}], r"`dpg\[0\]` must have the keys"),
        ([{**ENTRY, "question": " "}], r"`dpg\[0\].question` is no text"),
        ([{**ENTRY, "question": 3}], r"`dpg\[0\].question` is no text"),
        *(([{**ENTRY, "id": bad}], r"`dpg\[0\].id` is .*; it must be a whole number above 0") for bad in BAD_IDS),
        *(
            ([{**ENTRY, "parents": bad}], r"`dpg\[0\].parents` is .*; it must be a list of other")
            for bad in BAD_PARENTS
        ),
        ([{**ENTRY, "category": 5}], r"`dpg\[0\].category` is no text"),
        ([{**ENTRY, "category": ""}], r"`dpg\[0\].category` is no text"),
        ([ENTRY, ENTRY], r"`dpg\[1\].id` 1 appears twice"),
        ([{**ENTRY, "parents": [2]}], "depends on 2, which is no question"),
    ],
)
def test_damaged_metadata_are_told(value, message):
    with pytest.raises(RewardError, match=message):
        questions_of({"dpg": value})
