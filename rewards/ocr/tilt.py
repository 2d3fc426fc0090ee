"""Tilted text made level: of a sign that hangs askew the upright boxes of lines overlap, and tell no order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from blip3o_grpo.rewards.ocr.blocks import Box

_LEVEL = 2.0
"""Degrees up to which text counts as level."""


def level_boxes(quads: Sequence[np.ndarray]) -> list[Box]:
    """Boxes around lines, after a picture whose text is tilted was turned about the middle of its text.

    Args:
        quads: each `[4, 2]`, corners of a line in pixels, the first two where its upper edge begins and ends.
    """
    if not quads:
        return []
    corners = np.asarray(quads, dtype=np.float64)  # [lines, 4, 2]
    tilt = _tilt(corners[:, 1] - corners[:, 0])
    if abs(tilt) > _LEVEL:
        cos, sin = np.cos(np.radians(tilt)), np.sin(np.radians(tilt))
        middle = corners.mean(axis=(0, 1))
        corners = (corners - middle) @ np.array([[cos, -sin], [sin, cos]]) + middle
    ends = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
    return [tuple(box) for box in ends.tolist()]


def _tilt(tops: np.ndarray) -> float:
    """Degrees, clockwise, of the text of most lines: the median over their lengths, as short ones say little.

    Args:
        tops: `[lines, 2]`, the upper edge of each line.
    """
    angles, lengths = np.degrees(np.arctan2(tops[:, 1], tops[:, 0])), np.hypot(*tops.T)
    order = np.argsort(angles)
    half = np.searchsorted(np.cumsum(lengths[order]), lengths.sum() / 2)
    return float(angles[order][half])
