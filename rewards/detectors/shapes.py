"""Finds the tiny world's coloured shapes on a plain background by classical vision; no weights."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import cv2
import numpy as np

from blip3o_grpo.configs.tiny_world import SHAPE_BOX, SHAPES, outline
from blip3o_grpo.rewards.detectors.detections import Detections

MIN_AREA = 0.01
"""Of the image; the smallest shape covers about 2.5 % of a tiny picture."""
FOREGROUND = 60
"""Distance from the background, summed over RGB (0 to 765), from which a pixel belongs to a shape."""
SMOOTHING = 0.6
"""Standard deviation (px of a tiny picture) of the blur that takes out noise first."""
TINY_SIDE = 56
"""Side (px) of a tiny picture; in larger ones, lengths grow with the picture."""
SOFTNESS = (0.0, 0.06)
"""Blurs of the templates, as a share of a shape's box: drawn shapes, and those of a soft picture."""


class ShapeDetector:
    """Connected regions that differ from the background, named by the outline that overlaps best.

    A detection's score is that overlap in [0, 1]: the intersection over union of the region's coverage and the
    shape's own, stretched to the same box. Cleanly drawn shapes score 0.75 and more.
    """

    class_names = SHAPES

    def __call__(self, images: Sequence[np.ndarray]) -> list[Detections]:
        """One result per `[H, W, 3]` uint8 RGB image, with masks."""
        return [self._detect(image) for image in images]

    def _detect(self, image: np.ndarray) -> Detections:
        height, width = image.shape[:2]
        boxes, scores, classes, masks = [], [], [], []
        for coverage in _regions(image):
            mask = coverage > 0.5
            rows, columns = np.where(mask.any(1))[0], np.where(mask.any(0))[0]
            top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
            kind, overlap = _best_outline(coverage[top:bottom, left:right])
            boxes.append((left, top, right, bottom))
            scores.append(overlap)
            classes.append(kind)
            masks.append(mask)
        return Detections(
            np.asarray(boxes, np.float32).reshape(-1, 4),
            np.asarray(scores, np.float32),
            tuple(classes),
            np.asarray(masks, bool).reshape(-1, height, width),
        )


def _regions(image: np.ndarray) -> list[np.ndarray]:
    """Coverage `[H, W]` in [0, 1] of each shape: how far a pixel is from the background towards the shape's colour."""
    sigma = SMOOTHING * max(1.0, min(image.shape[:2]) / TINY_SIDE)
    image = cv2.GaussianBlur(image, (0, 0), sigma).astype(np.float32)
    border = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    offset = image - np.median(border, axis=0)
    smallest = MIN_AREA * offset.shape[0] * offset.shape[1]
    regions = []
    for area in _components(np.abs(offset).sum(-1) > FOREGROUND, smallest):
        core = cv2.erode(area.astype(np.uint8), np.ones((3, 3), np.uint8), iterations=max(1, round(2 * sigma))) > 0
        color = np.median(offset[core if core.any() else area], axis=0)
        coverage = np.clip(offset @ color / max(1.0, float(color @ color)), 0, 1)
        around = cv2.dilate(area.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
        for part in _components((coverage > 0.5) & around, smallest):
            near = cv2.dilate(part.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
            regions.append(np.where(part | (near & (coverage <= 0.5)), coverage, 0))
    return regions


def _components(mask: np.ndarray, smallest: float) -> list[np.ndarray]:
    """Masks of the connected parts of at least `smallest` px."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=4)
    return [labels == label for label in range(1, len(stats)) if stats[label, cv2.CC_STAT_AREA] >= smallest]


def _best_outline(coverage: np.ndarray) -> tuple[str, float]:
    """Name of the shape that a tight `[h, w]` coverage overlaps best, and the intersection over union."""
    size = coverage.shape[1], coverage.shape[0]
    overlaps: dict[str, float] = {}
    for kind, template in _templates():
        other = cv2.resize(template, size, interpolation=cv2.INTER_AREA)
        overlap = float(np.minimum(coverage, other).sum() / np.maximum(coverage, other).sum())
        overlaps[kind] = max(overlap, overlaps.get(kind, 0.0))
    best = max(overlaps, key=overlaps.__getitem__)
    return best, overlaps[best]


@cache
def _templates() -> list[tuple[str, np.ndarray]]:
    """Coverage of every shape and softness at 16 times the drawn size, cropped to its box."""
    scale, margin = 16, 32
    templates = []
    for kind in SHAPES:
        corners = (np.asarray(outline(kind)) * scale + margin).round().astype(np.int32)
        sharp = cv2.fillPoly(np.zeros((SHAPE_BOX * scale + 2 * margin,) * 2, np.float32), [corners], 1.0)
        for softness in SOFTNESS:
            soft = cv2.GaussianBlur(sharp, (0, 0), softness * SHAPE_BOX * scale) if softness else sharp
            rows, columns = np.where((soft > 0.5).any(1))[0], np.where((soft > 0.5).any(0))[0]
            templates.append((kind, soft[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]))
    return templates
