"""Boxes of tilted text, against the boxes of the same text before it was tilted."""

from __future__ import annotations

import numpy as np
import pytest

from blip3o_grpo.rewards.ocr.tilt import level_boxes

LINES = [(0, 0, 100, 10), (0, 15, 120, 25), (200, 0, 260, 10), (270, 15, 275, 25)]


def corners(box: tuple[float, ...], degrees: float) -> np.ndarray:
    """Clockwise from the upper left, the picture turned clockwise (y points downwards)."""
    left, top, right, bottom = box
    angle = np.radians(degrees)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)], float) @ turn


@pytest.mark.parametrize("degrees", [-44, -15, -3, 3, 15, 44])
def test_the_boxes_of_tilted_text_are_those_of_level_text(degrees):
    """But for their place: the text is turned about its middle."""
    boxes = np.array(level_boxes([corners(line, degrees) for line in LINES]))
    offset = boxes[0, :2] - LINES[0][:2]
    assert boxes - np.tile(offset, 2) == pytest.approx(np.array(LINES, float))


def test_text_that_is_nearly_level_keeps_its_place():
    assert level_boxes([corners(line, 0) for line in LINES]) == LINES
    (box,) = level_boxes([np.array([(0, 0), (100, 3), (100, 13), (0, 10)])])  # 1.7 degrees
    assert box == (0, 0, 100, 13)
    assert level_boxes([]) == []


def test_long_lines_tell_the_tilt():
    quads = [corners(LINES[0], 0), corners((0, 40, 10, 50), 40), corners((0, 60, 10, 70), 40)]
    assert level_boxes(quads)[0] == LINES[0]
