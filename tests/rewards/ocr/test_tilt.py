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


@pytest.mark.parametrize(("degrees", "height"), [(1.99, 13.5), (2.01, 10), (-1.99, 13.5), (-2.01, 10)])
def test_text_is_turned_beyond_two_degrees(degrees, height):
    """What is turned less keeps the upright box around it, which is higher than the line."""
    (box,) = level_boxes([corners((0, 0, 100, 10), degrees)])
    assert box[3] - box[1] == pytest.approx(height, abs=0.05)


def test_the_middle_of_the_text_stays_where_it_is():
    quads = [corners((500, 300, 700, 330), 20), corners((500, 340, 700, 370), 20)]
    boxes = np.array(level_boxes(quads))
    assert boxes.mean(axis=0).reshape(2, 2).mean(axis=0) == pytest.approx(np.mean(quads, axis=(0, 1)))


def test_lines_of_more_than_half_the_length_tell_the_tilt():
    """Of a level and a tilted line, whichever is longer."""
    for level, tilted, expected in ((40, 60, 10), (60, 40, 0)):
        quads = [corners((0, 0, level, 10), 0), corners((0, 40, tilted, 50), 10)]
        box = level_boxes(quads)[1 if expected else 0]
        assert box[3] - box[1] == pytest.approx(10)


def test_long_lines_tell_the_tilt():
    quads = [corners(LINES[0], 0), corners((0, 40, 10, 50), 40), corners((0, 60, 10, 70), 40)]
    assert level_boxes(quads)[0] == LINES[0]
