"""What a step's images look like, in a few numbers that move when a policy starts to please rewards at their cost.

All are computed on the image resized to 64 x 64 px, in integers, since they are paid for in every step.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from scipy import stats

from blip3o_grpo.rollout.types import RolloutGroup

SIDE = 64
THUMBNAIL = 16
LEVELS = 4  # per channel, so 64 coarse colours

IMAGE_SIGNALS = {
    "image/brightness": "mean pixel",
    "image/contrast": "standard deviation of the pixels inside an image",
    "image/edges": "mean step between neighbouring pixels",
    "image/saturation": "mean distance between the strongest and the weakest colour channel",
    "image/entropy": "entropy of the coarse colours, 1: all equally frequent",
    "image/diversity": "root mean square distance between the images of a group",
}
"""Metric name to what it is; each lies in [0, 1]."""


def image_signals(groups: Sequence[RolloutGroup]) -> dict[str, float]:
    """Sums over all images of each of `IMAGE_SIGNALS`; divide by the number of images (of all ranks) for the mean.

    A group's diversity counts once for each of its images.
    """
    sums = dict.fromkeys(IMAGE_SIGNALS, 0.0)
    for group in groups:
        for name, values in _measure(np.stack([_resized(rollout.image) for rollout in group.rollouts])).items():
            sums[name] += float(values.sum())
    return sums


def group_diversity(images: Sequence[np.ndarray]) -> float:
    """`image/diversity` of one group's images `[H, W, 3]` uint8."""
    return _diversity(np.stack([_resized(image) for image in images]))


def _measure(pixels: np.ndarray) -> dict[str, np.ndarray]:
    """`[G]` values of a group's images `[G, 64, 64, 3]` uint8."""
    gray = np.stack([cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in pixels]).astype(np.int16)
    across, down = np.abs(np.diff(gray, axis=2)).mean(axis=(1, 2)), np.abs(np.diff(gray, axis=1)).mean(axis=(1, 2))
    strongest, weakest = pixels.max(axis=3), pixels.min(axis=3)
    return {
        "image/brightness": pixels.mean(axis=(1, 2, 3)) / 255,
        "image/contrast": pixels.std(axis=(1, 2, 3)) / 255,
        "image/edges": (across + down) / (2 * 255),
        "image/saturation": (strongest - weakest).mean(axis=(1, 2)) / 255,
        "image/entropy": np.array([_entropy(image) for image in pixels]),
        "image/diversity": np.full(len(pixels), _diversity(pixels)),
    }


def _entropy(image: np.ndarray) -> float:
    """Entropy of an image's coarse colours as a share of the largest possible."""
    coarse = image.astype(np.int32) * LEVELS // 256
    codes = (coarse[..., 0] * LEVELS + coarse[..., 1]) * LEVELS + coarse[..., 2]
    return float(stats.entropy(np.bincount(codes.ravel()), base=LEVELS**3))


def _diversity(pixels: np.ndarray) -> float:
    """Root of the mean squared distance per channel over all pairs of a group, on thumbnails.

    The mean over pairs is 2 G / (G - 1) times the mean squared distance from the group's mean image.
    """
    size = len(pixels)
    if size < 2:
        return 0.0
    small = np.stack([cv2.resize(image, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA) for image in pixels])
    return float(np.sqrt(2 * size / (size - 1) * (small.astype(np.float32) / 255).var(axis=0).mean()))


def _resized(image: np.ndarray) -> np.ndarray:
    smaller = max(image.shape) > SIDE
    return cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)
