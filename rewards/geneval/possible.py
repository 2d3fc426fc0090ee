"""Which GenEval records no picture can satisfy, by the official verdict: such a prompt would score 0 for ever.

The verdict gives every clause of a class the same objects, best first: two clauses that ask for one dog ask for the
same dog. A picture can hold what is asked for unless one of the rules below is broken.
"""

from __future__ import annotations

from collections.abc import Sequence

from blip3o_grpo.rewards.geneval.types import Clause, Record
from blip3o_grpo.rewards.types import RewardError

MAX_OBJECTS = 16
"""Objects kept per class; more are not seen."""

_ORDER = {"left of": ("x", True), "right of": ("x", False), "above": ("y", True), "below": ("y", False)}
"""Relation to its axis, and whether the clause's object comes before its target there."""


def check_possible(record: Record) -> None:
    """Refuse a record that no picture can satisfy.

    Raises:
        RewardError: naming the clause, and the one that it contradicts.
    """
    _check_counts(record)
    _check_colors(record.include)
    _check_positions(record.include)


def _check_counts(record: Record) -> None:
    most: dict[str, int] = {}
    for index, clause in enumerate(record.include):
        if clause.count > MAX_OBJECTS:
            raise RewardError(
                f"`include[{index}].count` is {clause.count}; at most {MAX_OBJECTS} objects of a class are counted"
            )
        most[clause.class_name] = max(clause.count, most.get(clause.class_name, clause.count))
    for index, clause in enumerate(record.exclude):
        needed = most.get(clause.class_name)
        if needed is not None and clause.count <= needed:
            raise RewardError(
                f"`exclude[{index}]` forbids {clause.count} {clause.class_name} or more, but `include` asks for "
                f"{needed}; the least that can be forbidden is {needed + 1}"
            )


def _check_colors(include: Sequence[Clause]) -> None:
    first: dict[str, int] = {}
    for index, clause in enumerate(include):
        if clause.color is None:
            continue
        earlier = first.setdefault(clause.class_name, index)
        if include[earlier].color != clause.color:
            raise RewardError(
                f"`include[{index}]` asks for a {clause.color} {clause.class_name}, but `include[{earlier}]` for a "
                f"{include[earlier].color} one: both look at the best {clause.class_name}, which has one colour"
            )


def _check_positions(include: Sequence[Clause]) -> None:
    """No class may come before itself on an axis, through however many relations."""
    after: dict[str, dict[str, set[str]]] = {"x": {}, "y": {}}
    for index, clause in enumerate(include):
        if clause.position is None:
            continue
        relation, target_index = clause.position
        name, target = clause.class_name, include[target_index].class_name
        if name == target:
            raise RewardError(
                f"`include[{index}].position` asks for a {name} {relation} a {name}: both clauses look at the same one"
            )
        axis, comes_first = _ORDER[relation]
        low, high = (name, target) if comes_first else (target, name)
        if low in _reached(after[axis], high):
            raise RewardError(
                f"`include[{index}].position` asks for a {name} {relation} a {target}, which the clauses before it "
                "rule out"
            )
        after[axis].setdefault(low, set()).add(high)


def _reached(after: dict[str, set[str]], start: str) -> set[str]:
    """Everything that comes after `start`."""
    found, waiting = set(), [start]
    while waiting:
        new = after.get(waiting.pop(), set()) - found
        found |= new
        waiting += new
    return found
