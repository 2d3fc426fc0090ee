"""GenEval scores as pure functions of what was detected: `strict`, the official benchmark, and `dense`, for training.

Both look at the same objects: per class those above the score threshold, best first, at most 16. Ties in the score are
broken by the box, so the order in which a detector lists them does not matter; a deviation from the official script,
which keeps the detector's order among equal scores.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from blip3o_grpo.rewards.detectors.detections import Detections
from blip3o_grpo.rewards.geneval.possible import MAX_OBJECTS
from blip3o_grpo.rewards.geneval.types import Clause, Record

THRESHOLD = 0.3
COUNTING_THRESHOLD = 0.9
POSITION_MARGIN = 0.1
"""Share of both objects' sizes by which centres may differ without counting as apart."""

Box = tuple[float, float, float, float]
Colors = Callable[[Sequence[int]], Sequence[str]]
"""Indices of detections to their colour names; called only for clauses that ask for a colour."""
Objects = Mapping[str, Sequence[int]]
"""Class name to indices of the detections that count, best first."""


def keep_objects(detections: Detections, threshold: float, max_objects: int = MAX_OBJECTS) -> dict[str, list[int]]:
    """Indices of the detections with a score above `threshold`, by class, best first."""
    kept: dict[str, list[int]] = {}
    order = sorted(
        (i for i in range(len(detections)) if detections.scores[i] > threshold),
        key=lambda i: (-float(detections.scores[i]), *map(float, detections.boxes[i])),
    )
    for index in order:
        group = kept.setdefault(detections.classes[index], [])
        if len(group) < max_objects:
            group.append(index)
    return kept


def relations(a: Box, b: Box) -> set[str]:
    """Where `a` lies, seen from `b`: `left of`, `right of`, `above`, `below`, two of them, or none.

    Centres must be apart by more than a tenth of both sizes on an axis; what is left of the offset must make up more
    than half of the whole offset.
    """
    corners_a, corners_b = np.asarray(a, np.float64).reshape(2, 2), np.asarray(b, np.float64).reshape(2, 2)
    offset = corners_a.mean(0) - corners_b.mean(0)
    sizes = np.abs(corners_a[1] - corners_a[0]) + np.abs(corners_b[1] - corners_b[0])
    apart = np.maximum(np.abs(offset) - POSITION_MARGIN * sizes, 0) * np.sign(offset)
    if (np.abs(apart) < 1e-3).all():
        return set()
    x, y = apart / np.linalg.norm(offset)
    names = {"left of": x < -0.5, "right of": x > 0.5, "above": y < -0.5, "below": y > 0.5}
    return {name for name, holds in names.items() if holds}


def strict(record: Record, objects: Objects, boxes: np.ndarray, colors: Colors) -> tuple[bool, list[str]]:
    """Official verdict, and in words what is wrong.

    Args:
        record: what was asked for.
        objects: of `keep_objects`.
        boxes: `[N, 4]` of all detections.
        colors: classifier of this image's detections.
    """
    reasons: list[str] = []
    matched: list[Sequence[int] | None] = []
    for clause in record.include:
        found = objects.get(clause.class_name, ())[: clause.count]
        reason = _mismatch(clause, found, matched, boxes, colors)
        matched.append(None if reason else found)
        if reason:
            reasons.append(reason)
    for clause in record.exclude:
        count = len(objects.get(clause.class_name, ()))
        if count >= clause.count:
            reasons.append(f"expected {clause.class_name}<{clause.count}, found {count}")
    return not reasons, reasons


def _mismatch(
    clause: Clause, found: Sequence[int], matched: Sequence[Sequence[int] | None], boxes: np.ndarray, colors: Colors
) -> str | None:
    """The first rule that a clause's best objects break."""
    if len(found) < clause.count:
        return f"expected {clause.class_name}>={clause.count}, found {len(found)}"
    if clause.color is not None:
        seen = list(colors(found))
        if seen.count(clause.color) < clause.count:
            counts = ", ".join(f"{seen.count(color)} {color}" for color in sorted(set(seen)))
            return f"expected {clause.color} {clause.class_name}>={clause.count}, found {counts}"
    if clause.position is not None:
        relation, target = clause.position
        if matched[target] is None:
            return f"no target for {clause.class_name} to be {relation}"
        for a in found:
            for b in matched[target]:
                true = relations(boxes[a], boxes[b])
                if relation not in true:
                    where = " and ".join(sorted(true)) or "nowhere from"
                    return f"expected {clause.class_name} {relation} target, found {where} target"
    return None


def dense(record: Record, objects: Objects, boxes: np.ndarray, colors: Colors) -> float:
    """Training score in [0, 1]: the mean over parts.

    Every include clause has a part for its count, max(0, 1 - |count - found| / count), one for its colour if it asks
    for one, and one for its position; with a wrong count the latter two are 0, with the right one they are the share
    of objects in that colour, and the share of pairs in that relation (0 if the target's count is wrong). An exclude
    clause that is broken is one more part of 0; a kept one adds none, so an empty image earns nothing.
    """
    parts: list[float] = []
    for clause in record.include:
        found = objects.get(clause.class_name, ())
        right = len(found) == clause.count
        parts.append(max(0.0, 1 - abs(clause.count - len(found)) / clause.count))
        if clause.color is not None:
            parts.append(list(colors(found)).count(clause.color) / clause.count if right else 0.0)
        if clause.position is not None:
            parts.append(_pairs_in_relation(clause, record, objects, boxes) if right else 0.0)
    parts += [0.0 for clause in record.exclude if len(objects.get(clause.class_name, ())) >= clause.count]
    return sum(parts) / len(parts)


def _pairs_in_relation(clause: Clause, record: Record, objects: Objects, boxes: np.ndarray) -> float:
    relation, target_index = clause.position
    target = record.include[target_index]
    others = objects.get(target.class_name, ())
    if len(others) != target.count:
        return 0.0
    pairs = [relation in relations(boxes[a], boxes[b]) for a in objects[clause.class_name] for b in others]
    return sum(pairs) / len(pairs)
