"""What a GenEval record holds, once it is read."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Clause:
    """Objects of one class that the image must (`include`) or must not (`exclude`) hold."""

    class_name: str
    count: int
    color: str | None = None
    position: tuple[str, int] | None = None
    """Relation, and the index of the earlier include clause it refers to."""


@dataclass(frozen=True)
class Record:
    """What one prompt asks for: all of `include`, none of `exclude`."""

    tag: str
    include: tuple[Clause, ...]
    exclude: tuple[Clause, ...] = ()
