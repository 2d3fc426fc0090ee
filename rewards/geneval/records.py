"""GenEval records: what a prompt asks for, parsed from the official metadata format and checked.

{"tag": "position", "prompt": "a photo of a dog right of a tie",
 "include": [{"class": "tie", "count": 1}, {"class": "dog", "count": 1, "position": ["right of", 0]}]}
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from blip3o_grpo.rewards.detectors.coco import nearest_class
from blip3o_grpo.rewards.geneval.possible import check_possible
from blip3o_grpo.rewards.geneval.types import Clause, Record
from blip3o_grpo.rewards.hooks import TagTable
from blip3o_grpo.rewards.types import RewardError

TAG_TABLE = TagTable(
    {
        "single_object": "Single object",
        "two_object": "Two objects",
        "counting": "Counting",
        "colors": "Colors",
        "position": "Position",
        "color_attr": "Color attribution",
    }
)
"""The official six, what published tables call them, in their order."""
TAGS = tuple(TAG_TABLE.titles)
COLOR_NAMES = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")
MOST_NAMES = 12
"""More are not listed in an error."""
RELATIONS = ("left of", "right of", "above", "below")


def is_record(metadata: Mapping[str, Any]) -> bool:
    """Whether a prompt's metadata is meant to be a GenEval record."""
    return "include" in metadata or "exclude" in metadata


def parse_record(
    metadata: Mapping[str, Any],
    class_names: Collection[str] | None = None,
    color_names: Collection[str] = COLOR_NAMES,
) -> Record:
    """A checked record.

    Args:
        metadata: with `include`, and `tag` and `exclude` where they apply; other keys are ignored.
        class_names: classes the detector can find; None: any.
        color_names: colours the classifier can tell.

    Raises:
        RewardError: naming the key and the nearest right value; or no picture can satisfy the record.
    """
    include = _clauses(metadata, "include", class_names, color_names)
    if not include:
        raise RewardError("`include` must hold at least one clause")
    tag = metadata.get("tag", "")
    if not isinstance(tag, str):
        raise RewardError(f"`tag` must be text, found {tag!r}")
    spelt = re.sub(r"[\s_-]+", "_", tag.strip().casefold())
    if spelt in TAGS and tag not in TAGS:
        raise RewardError(f"`tag` is {tag!r}; did you mean {spelt!r}?")
    record = Record(tag, include, _clauses(metadata, "exclude", class_names, color_names))
    check_possible(record)
    return record


def tag_warning(tag: str) -> str | None:
    """What is odd about a tag: only `counting` has a threshold of its own, and a table shows the official six first."""
    if tag in TAGS:
        return None
    if not tag:
        return "a GenEval record has no `tag`: it is scored as all kinds of prompts but `counting`"
    near = difflib.get_close_matches(tag.casefold(), TAGS)
    hint = f"did you mean {near[0]!r}?" if near else f"the official ones are {', '.join(TAGS)}"
    return f"unknown GenEval `tag` {tag!r}: it is scored as all kinds of prompts but `counting`; {hint}"


def _clauses(
    metadata: Mapping[str, Any], key: str, class_names: Collection[str] | None, color_names: Collection[str]
) -> tuple[Clause, ...]:
    values = metadata.get(key, ())
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise RewardError(f"`{key}` must be a list of clauses, found {values!r}")
    allowed = ("class", "count", "color", "position") if key == "include" else ("class", "count")
    return tuple(
        _clause(value, f"{key}[{index}]", index, allowed, class_names, color_names)
        for index, value in enumerate(values)
    )


def _clause(
    value: Any,
    place: str,
    index: int,
    allowed: tuple[str, ...],
    class_names: Collection[str] | None,
    color_names: Collection[str],
) -> Clause:
    if not isinstance(value, Mapping):
        raise RewardError(f"`{place}` must be an object with `class` and `count`, found {value!r}")
    for name in value:
        if name not in allowed:
            raise RewardError(f"`{place}`: unknown key {name!r}{_nearest(str(name), allowed)}")
    for name in ("class", "count"):
        if name not in value:
            raise RewardError(f"`{place}`: the key {name!r} is missing")
    class_name = _one_of(value["class"], class_names, f"{place}.class", "class")
    count = value["count"]
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise RewardError(f"`{place}.count` is {count!r}; it must be a whole number of at least 1")
    color = value.get("color")
    if color is not None:
        color = _one_of(color, color_names, f"{place}.color", "colour")
    position = value.get("position")
    return Clause(class_name, count, color, None if position is None else _position(position, place, index))


def _position(value: Any, place: str, index: int) -> tuple[str, int]:
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != 2:
        raise RewardError(f"`{place}.position` must be [relation, index of the target clause], found {value!r}")
    relation = _one_of(value[0], RELATIONS, f"{place}.position", "relation")
    target = value[1]
    if isinstance(target, bool) or not isinstance(target, int) or not 0 <= target < index:
        what = "refers to itself" if target == index else f"refers to clause {target!r}"
        earlier = f"one of the clauses 0 to {index - 1}" if index else "an earlier clause, and there is none"
        raise RewardError(f"`{place}.position` {what}; it must refer to {earlier}")
    return relation, target


def _one_of(value: Any, known: Collection[str] | None, place: str, what: str) -> str:
    if not isinstance(value, str):
        raise RewardError(f"`{place}`: a {what} must be text, found {value!r}")
    if known is not None and value not in known:
        raise RewardError(f"`{place}`: unknown {what} {value!r}{_nearest(value, known)}")
    return value


def _nearest(value: str, known: Collection[str]) -> str:
    meant = nearest_class(value, known)
    near = [meant] if meant else difflib.get_close_matches(value, known)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; known: {', '.join(known)}" if len(known) <= MOST_NAMES else ""
