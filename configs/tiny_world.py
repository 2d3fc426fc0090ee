"""What the tiny world's pictures are made of: colours and outlines, numbers only.

For those who draw it (`policies.tiny_world.world`) and those who look at it (`rewards.detectors.shapes`).
"""

from __future__ import annotations

import math
from functools import cache

COLORS = {
    "red": (214, 40, 40),
    "orange": (240, 130, 20),
    "yellow": (250, 205, 50),
    "green": (30, 140, 60),
    "blue": (35, 85, 200),
    "purple": (120, 50, 160),
    "pink": (240, 130, 185),
    "brown": (125, 75, 40),
    "black": (25, 25, 28),
}
SHAPE_COLORS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "black")
SHAPES = ("circle", "square", "triangle", "star", "diamond", "heart")
SHAPE_BOX = 16
"""Side of the box a shape is drawn in, px."""


@cache
def outline(kind: str) -> tuple[tuple[float, float], ...]:
    """Corners (x, y) of a shape's outline in px of its box.

    Raises:
        ValueError: no such shape.
    """
    if kind == "circle":
        turns = [2 * math.pi * step / 80 for step in range(80)]
        return tuple((8 + 7 * math.cos(turn), 8 + 7 * math.sin(turn)) for turn in turns)
    if kind == "square":
        return ((2, 2), (14, 2), (14, 14), (2, 14))
    if kind == "triangle":
        return ((8, 1), (15, 14), (1, 14))
    if kind == "diamond":
        return ((8, 1), (14, 8), (8, 15), (2, 8))
    if kind == "star":
        spokes = [(7.2 if spoke % 2 == 0 else 3.0, spoke * math.pi / 5) for spoke in range(10)]
        return tuple((8 + radius * math.sin(turn), 8.5 - radius * math.cos(turn)) for radius, turn in spokes)
    if kind == "heart":
        turns = [2 * math.pi * step / 79 for step in range(80)]
        wave = [13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t) for t in turns]
        return tuple((8 + 7 * math.sin(t) ** 3, 7.2 - y * 7 / 16) for t, y in zip(turns, wave, strict=True))
    raise ValueError(f"unknown shape {kind!r}; the shapes are {', '.join(SHAPES)}")
