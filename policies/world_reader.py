"""Reads the tiny world's shapes back from pixels by classical vision: components, nearest colour, best mask."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from policies.world import COLORS, SHAPE_COLORS, SHAPES, shape_mask

MIN_AREA = 30  # px; the smallest shape covers about 80
FOREGROUND = 60  # L1 distance from the background, summed over RGB


@dataclass(frozen=True)
class SeenShape:
    """One shape found in a picture."""

    kind: str
    color: str
    box: tuple[float, float, float, float]  # x0, y0, x1, y1 in px

    @property
    def centre(self) -> tuple[float, float]:
        """Middle of the box."""
        return (self.box[0] + self.box[2]) / 2, (self.box[1] + self.box[3]) / 2


def read_shapes(image: np.ndarray) -> list[SeenShape]:
    """All shapes of a uint8 `[H, W, 3]` RGB picture on a plain background."""
    border = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    distance = np.abs(image.astype(int) - np.median(border, axis=0)).sum(-1)
    count, labels, stats, _ = cv2.connectedComponentsWithStats((distance > FOREGROUND).astype(np.uint8), connectivity=4)
    palette = np.array([COLORS[color] for color in SHAPE_COLORS])
    seen = []
    for label in range(1, count):
        left, top, width, height, area = stats[label]
        if area < MIN_AREA:
            continue
        mask = (labels == label)[top : top + height, left : left + width]
        core = image[top : top + height, left : left + width][cv2.erode(mask.astype(np.uint8), np.ones((3, 3))) > 0]
        if not len(core):
            continue
        color = SHAPE_COLORS[np.abs(palette - np.median(core, axis=0)).sum(-1).argmin()]
        seen.append(SeenShape(_kind(mask), color, (left, top, left + width, top + height)))
    return seen


def _kind(mask: np.ndarray) -> str:
    """Shape whose own cropped mask, stretched to the same box, overlaps best."""
    height, width = mask.shape
    scores = {}
    for kind in SHAPES:
        drawn = np.asarray(shape_mask(kind)) > 100
        rows, columns = np.where(drawn.any(1))[0], np.where(drawn.any(0))[0]
        crop = drawn[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].astype(np.uint8) * 255
        other = cv2.resize(crop, (width, height), interpolation=cv2.INTER_AREA) > 127
        scores[kind] = (mask & other).sum() / max(1, (mask | other).sum())
    return max(scores, key=scores.get)
