"""GenEval records that hypothesis makes up: refused exactly where no picture can satisfy them.

What a picture can hold is found here by trying: pictures are drawn at random on a coarse grid, and judged.
"""

import random
import time

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from blip3o_grpo.rewards import RewardError
from blip3o_grpo.rewards.geneval import Clause, Record, parse_record, strict
from blip3o_grpo.rewards.geneval.possible import MAX_OBJECTS
from blip3o_grpo.rewards.geneval.records import COLOR_NAMES, RELATIONS

BUDGET_S = 8
"""For each test; what is not reached in it is left to the next run."""
NAMES = ("dog", "cat", "cow")
GRID = [(x, y) for x in range(0, 500, 100) for y in range(0, 500, 100)]
TRIES = 400

fuzzed = settings(max_examples=150, deadline=None, database=None)


@st.composite
def records(draw) -> dict:
    """One to four clauses of few classes, so that they meet; forbidden counts near those asked for."""
    include = []
    for index in range(draw(st.integers(1, 4))):
        clause = {"class": draw(st.sampled_from(NAMES)), "count": draw(st.sampled_from([1, 1, 1, 2, 16, 17]))}
        if draw(st.integers(0, 3)) == 0:
            clause["color"] = draw(st.sampled_from(COLOR_NAMES[:2]))
        if index and draw(st.booleans()):
            clause["position"] = [draw(st.sampled_from(RELATIONS)), draw(st.integers(0, index - 1))]
        include.append(clause)
    exclude = draw(
        st.lists(st.fixed_dictionaries({"class": st.sampled_from(NAMES), "count": st.integers(1, 4)}), max_size=2)
    )
    return {"tag": "position", "include": include, "exclude": exclude}


def unchecked(metadata) -> Record:
    """The record, whatever it asks for."""

    def clauses(values):
        return tuple(
            Clause(value["class"], value["count"], value.get("color"), value.get("position")) for value in values
        )

    return Record(metadata["tag"], clauses(metadata["include"]), clauses(metadata["exclude"]))


def drawn(record, chance):
    """Objects of every class, as many as are asked for, each class at a place of its own; and their colours."""
    boxes, objects, colors = [], {}, []
    places = chance.sample(GRID, len(NAMES))
    for name, (x, y) in zip(NAMES, places, strict=True):
        asked = [clause for clause in record.include if clause.class_name == name]
        wanted = next((clause.color for clause in asked if clause.color), "red")
        objects[name] = range(len(boxes), len(boxes) + max((clause.count for clause in asked), default=0))
        boxes += [(x, y, x + 10, y + 10)] * len(objects[name])
        colors += [wanted] * len(objects[name])
    return objects, np.array(boxes, float).reshape(-1, 4), lambda indices: [colors[i] for i in indices]


def is_satisfied(record) -> bool:
    """Whether one of many random pictures is right."""
    chance = random.Random(0)
    return any(strict(record, *drawn(record, chance))[0] for _ in range(TRIES))


def test_a_record_is_taken_exactly_if_some_picture_is_right():
    end = time.monotonic() + BUDGET_S
    taken = []

    @fuzzed
    @given(records())
    def check(metadata):
        if time.monotonic() > end:
            return
        record = unchecked(metadata)
        try:
            parse_record(metadata)
        except RewardError:
            assert any(clause.count > MAX_OBJECTS for clause in record.include) or not is_satisfied(record)
        else:
            assert is_satisfied(record), metadata
            taken.append(record)

    check()
    assert taken


values = st.none() | st.booleans() | st.integers(-2, 20) | st.floats() | st.text(max_size=12)
odd = st.recursive(
    values,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["class", "count", "color", "position", "exclude", "é"]), inner, max_size=4)
    ),
    max_leaves=12,
)


def test_anything_else_is_refused_in_one_line():
    end = time.monotonic() + BUDGET_S

    @fuzzed
    @given(st.dictionaries(st.sampled_from(["tag", "include", "exclude", "prompt"]), odd | records(), max_size=4))
    def check(metadata):
        if time.monotonic() > end:
            return
        try:
            parse_record(metadata, NAMES)
        except RewardError as error:
            assert "`" in str(error) and "\n" not in str(error)

    check()
