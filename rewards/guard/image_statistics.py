"""Plain statistics of images, for telling whether a policy's pictures still look like they used to.

All are computed on the image resized to 64 x 64 px, once for the whole picture and once for its border, where the
background is. Values lie in [0, 1].
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

SIDE = 64
BORDER = 8
COLOR_LEVELS = 4  # per channel, so 64 coarse colours

_PER_REGION = (
    "mean_red",
    "mean_green",
    "mean_blue",
    "contrast_red",
    "contrast_green",
    "contrast_blue",
    "chroma",
    "edges",
    "color_entropy",
    "dominant_color",
)
STATISTICS: tuple[str, ...] = tuple(f"{region}.{name}" for region in ("image", "border") for name in _PER_REGION) + (
    "image.darkest",
    "image.brightest",
)


def image_statistics(images: Sequence[np.ndarray]) -> np.ndarray:
    """Statistics of each image, columns named by `STATISTICS`.

    Args:
        images: each `[H, W, 3]` uint8, RGB, of any size.

    Returns:
        `[N, len(STATISTICS)]` float64: per region the mean, standard deviation (x 2) and chroma (largest minus
        smallest channel) of the colours, the mean step between neighbouring pixels, the entropy of the coarse colours
        and the share of the most frequent one; for the whole image also the 5th and 95th percentile of luminance.
    """
    if not len(images):
        return np.zeros((0, len(STATISTICS)))
    pixels = np.stack([_resized(image) for image in images])
    scaled = pixels.astype(np.float64) / 255
    luminance = scaled @ np.array([0.299, 0.587, 0.114])
    steps = np.zeros_like(luminance)
    steps[:, :, 1:] += np.abs(np.diff(luminance, axis=2))
    steps[:, 1:, :] += np.abs(np.diff(luminance, axis=1))
    shifted = (pixels.astype(np.int64) * COLOR_LEVELS) // 256
    coarse = (shifted[..., 0] * COLOR_LEVELS + shifted[..., 1]) * COLOR_LEVELS + shifted[..., 2]

    border = np.ones((SIDE, SIDE), bool)
    border[BORDER:-BORDER, BORDER:-BORDER] = False
    regions = (np.ones_like(border), border)
    columns = [_region(scaled[:, mask], steps[:, mask], coarse[:, mask]) for mask in regions]
    columns.append(np.quantile(luminance.reshape(len(pixels), -1), (0.05, 0.95), axis=1).T)
    return np.concatenate(columns, axis=1)


def _resized(image: np.ndarray) -> np.ndarray:
    smaller = max(image.shape[:2]) > SIDE
    return cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)


def _region(colors: np.ndarray, steps: np.ndarray, coarse: np.ndarray) -> np.ndarray:
    """`[N, 10]` statistics of the pixels of one region: colours `[N, P, 3]`, steps and coarse colours `[N, P]`."""
    num_images, num_pixels = coarse.shape
    num_colors = COLOR_LEVELS**3
    offsets = np.arange(num_images)[:, None] * num_colors
    counts = np.bincount((coarse + offsets).ravel(), minlength=num_images * num_colors).reshape(num_images, -1)
    shares = counts / num_pixels
    entropy = -(shares * np.log(np.where(shares > 0, shares, 1))).sum(axis=1) / np.log(num_colors)
    chroma = (colors.max(axis=2) - colors.min(axis=2)).mean(axis=1)
    single = np.stack([chroma, steps.mean(axis=1), entropy, shares.max(axis=1)], axis=1)
    return np.concatenate([colors.mean(axis=1), 2 * colors.std(axis=1), single], axis=1)
