"""GenEval scoring: hand-written cases for every rule and boundary, and properties under random detections."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from blip3o_grpo.rewards import RewardError
from blip3o_grpo.rewards.detectors.detections import Detections
from blip3o_grpo.rewards.geneval import dense, keep_objects, parse_record, relations, strict
from blip3o_grpo.rewards.geneval.scoring import COUNTING_THRESHOLD, MAX_OBJECTS, POSITION_MARGIN, THRESHOLD

FAR = (1000.0, 1000.0)


def detections(*found: tuple) -> tuple[Detections, list[str]]:
    """Objects given as (class, score, centre, colour), each 20 px wide; scores, centres and colours may be left out."""
    boxes, scores, classes, colors = [], [], [], []
    for number, item in enumerate(found):
        name, score, centre, color = (*item, *(None,) * 4)[:4]
        x, y = centre or (FAR[0] + 50 * number, FAR[1])
        boxes.append((x - 10, y - 10, x + 10, y + 10))
        scores.append(0.95 if score is None else score)
        classes.append(name)
        colors.append(color or "red")
    return Detections(np.array(boxes, float).reshape(-1, 4), np.array(scores, float), tuple(classes)), colors


def judge(metadata: dict, found: Sequence[tuple]) -> tuple[bool, float, list[str]]:
    """Strict verdict, dense score and reasons, with the official thresholds."""
    record = parse_record(metadata)
    seen, colors = detections(*found)
    objects = keep_objects(seen, COUNTING_THRESHOLD if record.tag == "counting" else THRESHOLD)
    verdict, reasons = strict(record, objects, seen.boxes, lambda indices: [colors[i] for i in indices])
    return verdict, dense(record, objects, seen.boxes, lambda indices: [colors[i] for i in indices]), reasons


def one(name="dog", count=1, **more) -> dict:
    return {"class": name, "count": count, **more}


def counting(count: int) -> dict:
    return {"tag": "counting", "include": [one(count=count)], "exclude": [one(count=count + 1)]}


SINGLE = {"tag": "single_object", "include": [one()]}
TWO = {"tag": "two_object", "include": [one(), one("cat")]}
RED_DOG = {"tag": "colors", "include": [one(color="red")]}
TWO_RED = {"tag": "colors", "include": [one(count=2, color="red")]}
ATTR = {"tag": "color_attr", "include": [one(color="red"), one("cat", color="blue")]}


def position(relation: str) -> dict:
    """A dog in this relation to a cat."""
    return {"tag": "position", "include": [one("cat"), one("dog", position=[relation, 0])]}


CASES = {
    # counts
    "nothing": (SINGLE, [], False, 0),
    "one": (SINGLE, [("dog",)], True, 1),
    "two instead of one: fine officially, wrong count in training": (SINGLE, [("dog",)] * 2, True, 0),
    "other class only": (SINGLE, [("cat",)], False, 0),
    "other class too": (SINGLE, [("dog",), ("cat",)], True, 1),
    "sixteen instead of one is clamped at 0": (SINGLE, [("dog",)] * 16, True, 0),
    "score exactly at the threshold does not count": (SINGLE, [("dog", 0.3)], False, 0),
    "score just above it does": (SINGLE, [("dog", 0.3001)], True, 1),
    "score below it does not": (SINGLE, [("dog", 0.1)], False, 0),
    "person is a class like any other": ({"tag": "single_object", "include": [one("person")]}, [("person",)], True, 1),
    "both": (TWO, [("dog",), ("cat",)], True, 1),
    "one of two": (TWO, [("dog",)], False, 0.5),
    "none of two": (TWO, [("bird",)], False, 0),
    "two of the first only": (TWO, [("dog",), ("dog",)], False, 0),
    # counting, with exclude
    "three of three": (counting(3), [("dog",)] * 3, True, 1),
    "two of three": (counting(3), [("dog",)] * 2, False, 2 / 3),
    "four of three": (counting(3), [("dog",)] * 4, False, (2 / 3 + 0) / 2),
    "six of three": (counting(3), [("dog",)] * 6, False, 0),
    "nine of three is clamped": (counting(3), [("dog",)] * 9, False, 0),
    "none of three": (counting(3), [], False, 0),
    "two of two": (counting(2), [("dog",)] * 2, True, 1),
    "four of four": (counting(4), [("dog",)] * 4, True, 1),
    "five of four": (counting(4), [("dog",)] * 5, False, (3 / 4 + 0) / 2),
    "counting threshold is exclusive": (counting(2), [("dog", 0.95), ("dog", 0.9)], False, 1 / 2),
    "counting threshold, just above": (counting(2), [("dog", 0.95), ("dog", 0.901)], True, 1),
    "unsure extra objects do not break an exact count": (counting(2), [("dog", 0.95)] * 2 + [("dog", 0.5)], True, 1),
    "other classes do not break it": (counting(2), [("dog",)] * 2 + [("cat",)] * 3, True, 1),
    "exclude alone breaks": (
        {"tag": "x", "include": [one()], "exclude": [one("cat")]}, [("dog",), ("cat",)], False, 1 / 2
    ),
    "exclude kept": ({"tag": "x", "include": [one()], "exclude": [one("cat", 2)]}, [("dog",), ("cat",)], True, 1),
    "two excludes, one broken": (
        {"tag": "x", "include": [one()], "exclude": [one("cat"), one("cow")]}, [("dog",), ("cow",)], False, 1 / 2
    ),
    # colours
    "right colour": (RED_DOG, [("dog", 0.9, None, "red")], True, 1),
    "wrong colour": (RED_DOG, [("dog", 0.9, None, "blue")], False, 1 / 2),
    "colour of a missing object": (RED_DOG, [], False, 0),
    "only the best object's colour counts officially": (
        RED_DOG, [("dog", 0.9, None, "red"), ("dog", 0.8, None, "blue")], True, 0
    ),
    "the best one has the wrong colour": (RED_DOG, [("dog", 0.9, None, "blue"), ("dog", 0.8, None, "red")], False, 0),
    "both red": (TWO_RED, [("dog", 0.9, None, "red")] * 2, True, 1),
    "one of two red": (TWO_RED, [("dog", 0.9, None, "red"), ("dog", 0.8, None, "blue")], False, (1 + 1 / 2) / 2),
    "one red dog where two are asked": (TWO_RED, [("dog", 0.9, None, "red")], False, (1 / 2 + 0) / 2),
    "two colours": (ATTR, [("dog", 0.9, None, "red"), ("cat", 0.9, None, "blue")], True, 1),
    "colours swapped": (ATTR, [("dog", 0.9, None, "blue"), ("cat", 0.9, None, "red")], False, 2 / 4),
    "one of two colours": (ATTR, [("dog", 0.9, None, "red"), ("cat", 0.9, None, "red")], False, 3 / 4),
    "right colour, other object missing": (ATTR, [("dog", 0.9, None, "red")], False, 2 / 4),
    # positions: 20 px objects, so centres must be more than 0.1 * 40 = 4 px apart
    "left of": (position("left of"), [("cat", 0.9, (100, 0)), ("dog", 0.9, (0, 0))], True, 1),
    "not left of": (position("left of"), [("cat", 0.9, (0, 0)), ("dog", 0.9, (100, 0))], False, 2 / 3),
    "right of": (position("right of"), [("cat", 0.9, (0, 0)), ("dog", 0.9, (100, 0))], True, 1),
    "above": (position("above"), [("cat", 0.9, (0, 100)), ("dog", 0.9, (0, 0))], True, 1),
    "below": (position("below"), [("cat", 0.9, (0, 0)), ("dog", 0.9, (0, 100))], True, 1),
    "above is not below": (position("below"), [("cat", 0.9, (0, 100)), ("dog", 0.9, (0, 0))], False, 2 / 3),
    "zero offset is no relation": (position("left of"), [("cat", 0.9, (0, 0)), ("dog", 0.9, (0, 0))], False, 2 / 3),
    "touching boxes side by side": (position("left of"), [("cat", 0.9, (20, 0)), ("dog", 0.9, (0, 0))], True, 1),
    "within the margin": (position("left of"), [("cat", 0.9, (4, 0)), ("dog", 0.9, (0, 0))], False, 2 / 3),
    "just outside the margin, but mostly margin": (
        position("left of"), [("cat", 0.9, (7, 0)), ("dog", 0.9, (0, 0))], False, 2 / 3
    ),
    "half of the offset is margin: not more than half": (
        position("left of"), [("cat", 0.9, (8, 0)), ("dog", 0.9, (0, 0))], False, 2 / 3
    ),
    "a little more": (position("left of"), [("cat", 0.9, (8.1, 0)), ("dog", 0.9, (0, 0))], True, 1),
    "diagonal counts for both axes": (
        position("above"), [("cat", 0.9, (100, 100)), ("dog", 0.9, (0, 0))], True, 1
    ),
    "missing target": (position("left of"), [("dog", 0.9, (0, 0))], False, 1 / 3),
    "missing object": (position("left of"), [("cat", 0.9, (0, 0))], False, 1 / 3),
    "neither": (position("left of"), [], False, 0),
    "every pair must hold officially": (
        {"tag": "position", "include": [one("cat", 2), one("dog", position=["left of", 0])]},
        [("cat", 0.9, (100, 0)), ("cat", 0.8, (-100, 0)), ("dog", 0.9, (0, 0))], False, (1 + 1 + 1 / 2) / 3,
    ),
    "all pairs hold": (
        {"tag": "position", "include": [one("cat", 2), one("dog", position=["left of", 0])]},
        [("cat", 0.9, (100, 0)), ("cat", 0.8, (200, 0)), ("dog", 0.9, (0, 0))], True, 1,
    ),
    "only the best target counts officially": (
        position("left of"), [("cat", 0.9, (100, 0)), ("cat", 0.8, (-100, 0)), ("dog", 0.9, (0, 0))], True, 1 / 3
    ),
    "target in the wrong colour is no target": (
        {"tag": "x", "include": [one("cat", color="blue"), one("dog", position=["left of", 0])]},
        [("cat", 0.9, (100, 0), "red"), ("dog", 0.9, (0, 0))], False, (1 + 0 + 1 + 1) / 4,
    ),
    "colour and position in one clause": (
        {"tag": "x", "include": [one("cat"), one("dog", color="red", position=["left of", 0])]},
        [("cat", 0.9, (100, 0)), ("dog", 0.9, (0, 0), "red")], True, 1,
    ),
    "wrong colour, right position": (
        {"tag": "x", "include": [one("cat"), one("dog", color="red", position=["left of", 0])]},
        [("cat", 0.9, (100, 0)), ("dog", 0.9, (0, 0), "blue")], False, 3 / 4,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_cases_by_hand(name):
    metadata, found, verdict, score = CASES[name]
    is_correct, value, reasons = judge(metadata, found)
    assert is_correct is verdict
    assert value == pytest.approx(score)
    assert bool(reasons) is not verdict


def test_there_are_at_least_sixty_cases():
    assert len(CASES) >= 60


def test_thresholds_and_limits_are_the_official_ones():
    """As in djghosh13/geneval's evaluation script."""
    assert (THRESHOLD, COUNTING_THRESHOLD, MAX_OBJECTS, POSITION_MARGIN) == (0.3, 0.9, 16, 0.1)


def test_seventeen_boxes_are_sixteen():
    seen, _ = detections(*[("dog", 0.5 + 0.01 * i) for i in range(17)])
    kept = keep_objects(seen, 0.3)["dog"]
    assert kept == list(range(16, 0, -1))


@pytest.mark.parametrize(
    ("metadata", "found", "reason"),
    [
        (SINGLE, [], "expected dog>=1, found 0"),
        (counting(2), [("dog",)] * 3, "expected dog<3, found 3"),
        (RED_DOG, [("dog", 0.9, None, "blue")], "expected red dog>=1, found 1 blue"),
        (TWO_RED, [("dog", 0.9, None, "red"), ("dog", 0.8, None, "blue")], "expected red dog>=2, found 1 blue, 1 red"),
        (position("left of"), [("dog", 0.9, (0, 0))], "expected cat>=1, found 0\nno target for dog to be left of"),
        (
            position("left of"),
            [("cat", 0.9, (0, 0)), ("dog", 0.9, (90, 90))],
            "expected dog left of target, found below and right of target",
        ),
        (
            position("left of"),
            [("cat", 0.9, (0, 0)), ("dog", 0.9, (1, 1))],
            "expected dog left of target, found nowhere from target",
        ),
    ],
)
def test_reasons_say_what_is_wrong(metadata, found, reason):
    assert judge(metadata, found)[2] == reason.split("\n")


def test_relations_measure_against_the_whole_offset():
    """Offset (10, 100), margin 4: x keeps 6 / 100.5, y 96 / 100.5."""
    assert relations((0, 0, 20, 20), (10, 100, 30, 120)) == {"above"}
    assert relations((0, 0, 20, 20), (100, 100, 120, 120)) == {"left of", "above"}
    assert relations((0, 0, 20, 20), (0, 0, 20, 20)) == set()


DIRECTIONS = {"left of": (1, 0), "right of": (-1, 0), "above": (0, 1), "below": (0, -1)}
"""Where the other object lies."""


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("relation", DIRECTIONS)
def test_each_relation_has_its_own_border(relation):
    """20 px objects have a margin of 4 px; what is left of the offset must be more than half of it."""
    x, y = DIRECTIONS[relation]

    def found(distance, size=20.0):
        return relations((0, 0, size, size), (distance * x, distance * y, distance * x + size, distance * y + size))

    assert found(100) == found(8.01) == {relation}
    assert found(8) == found(4) == found(1) == found(0) == set()
    assert found(0.5, size=0.1) == {relation}  # no least distance in px
    assert found(0.0009, size=0.0001) == set()  # but for rounding errors,
    assert found(0.001, size=0.0) == {relation}  # which end here


NAMES = ("dog", "cat", "cow")
objects_found = st.lists(
    st.tuples(
        st.sampled_from(NAMES),
        st.sampled_from([0.2, 0.3, 0.31, 0.5, 0.9, 0.95]),
        st.tuples(st.integers(0, 200), st.integers(0, 200)),
        st.sampled_from(["red", "blue"]),
    ),
    max_size=10,
)
clauses = st.fixed_dictionaries(
    {"class": st.sampled_from(NAMES[:2]), "count": st.integers(1, 4)},
    optional={"color": st.sampled_from(["red", "blue"])},
)
excludes = st.lists(
    st.fixed_dictionaries({"class": st.sampled_from(NAMES[:2]), "count": st.integers(1, 4)}), max_size=1
)


@st.composite
def records(draw) -> dict:
    include = draw(st.lists(clauses, min_size=1, max_size=3))
    for index in range(1, len(include)):
        if draw(st.booleans()):
            relation = draw(st.sampled_from(["left of", "right of", "above", "below"]))
            include[index]["position"] = [relation, draw(st.integers(0, index - 1))]
    return {"tag": draw(st.sampled_from(["counting", "colors"])), "include": include, "exclude": draw(excludes)}


def is_possible(metadata: dict) -> bool:
    try:
        parse_record(metadata)
    except RewardError:
        return False
    return True


possible_records = records().filter(is_possible)


@settings(max_examples=150, deadline=None)
@given(possible_records, objects_found)
def test_dense_scores_lie_between_0_and_1(metadata, found):
    assert 0 <= judge(metadata, found)[1] <= 1


@settings(max_examples=100, deadline=None)
@given(clauses, st.lists(st.sampled_from(["cow", "bird"]), max_size=3))
def test_a_correct_single_clause_is_worth_1(clause, others):
    found = [(clause["class"], 0.95, None, clause.get("color"))] * clause["count"] + [(name,) for name in others]
    assert judge({"tag": "colors", "include": [clause]}, found)[:2] == (True, 1.0)


@settings(max_examples=100, deadline=None)
@given(possible_records, objects_found, st.randoms(use_true_random=False))
def test_the_order_of_boxes_does_not_matter(metadata, found, random):
    # a box determines its colour: two boxes at one place are one object to any classifier
    unique = list({(name, score, centre): item for item in found for name, score, centre in [item[:3]]}.values())
    assume(len({item[2] for item in unique}) == len(unique))
    shuffled = random.sample(unique, len(unique))
    assert judge(metadata, unique)[:2] == judge(metadata, shuffled)[:2]


@settings(max_examples=100, deadline=None)
@given(possible_records, objects_found, st.lists(st.sampled_from([0.2, 0.5, 0.95]), max_size=4))
def test_boxes_of_an_unrelated_class_change_nothing(metadata, found, scores):
    more = [*found, *(("zebra", score) for score in scores)]
    assert judge(metadata, found) == judge(metadata, more)


def test_equal_scores_are_ordered_by_their_boxes():
    items = [("dog", 0.5, (x, 0), None) for x in (10, 90, 50)]
    for order in itertools.permutations(items):
        seen, _ = detections(*order)
        assert [float(seen.boxes[i][0]) for i in keep_objects(seen, 0.3)["dog"]] == [0, 40, 80]
