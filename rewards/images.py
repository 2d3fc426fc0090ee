"""One image format for detectors and CLIP: `[H, W, 3]` uint8 RGB, converted explicitly or refused."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageOps

from blip3o_grpo.rewards.types import RewardError

_PLAIN_MODES = ("1", "L", "RGB", "CMYK", "YCbCr", "HSV", "LAB")
"""PIL modes without transparency, 8 bits per channel or less, that PIL converts to RGB without loss of range."""


def as_rgb(image: Image.Image | np.ndarray) -> np.ndarray:
    """Convert an image to `[H, W, 3]` uint8 RGB; an array that already is that comes back as it is.

    Greyscale is repeated, transparency is laid over white, and 16 bits per channel (0 to 65535) become 8 by division by
    257 with rounding. A PIL image is turned as its EXIF orientation says.

    Args:
        image: PIL image, or array `[H, W]`, `[H, W, 1]`, `[H, W, 3]` or `[H, W, 4]` (RGBA) of uint8 or uint16.

    Raises:
        RewardError: floats, other integers, other shapes, or no pixels: their range or meaning is not known.
    """
    if isinstance(image, Image.Image):
        image = _from_pil(ImageOps.exif_transpose(image))
    if not isinstance(image, np.ndarray):
        raise RewardError(f"an image must be a PIL image or a numpy array, not {type(image).__name__}")
    if image.ndim == 2:
        image = image[:, :, None]
    if image.ndim != 3 or image.shape[2] not in (1, 3, 4):
        raise RewardError(f"an image of shape {image.shape} is none of [H, W], [H, W, 1], [H, W, 3] and [H, W, 4]")
    if 0 in image.shape:
        raise RewardError(f"an image of shape {image.shape} has no pixels")
    if image.dtype == np.uint16:
        image = ((image.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if image.dtype != np.uint8:
        raise RewardError(f"an image of {image.dtype} has no known range; give uint8 (0 to 255) or uint16 (0 to 65535)")
    if image.shape[2] == 4:
        return _over_white(image)
    return np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image


def _from_pil(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I;16"):
        return np.asarray(image).astype(np.uint16)
    if image.has_transparency_data:
        return np.asarray(image.convert("RGBA"))
    if image.mode in _PLAIN_MODES or image.mode == "P":
        return np.asarray(image.convert("RGB"))
    raise RewardError(f"a PIL image of mode {image.mode!r} has no known range; convert it to 'RGB' or 'I;16' first")


def _over_white(image: np.ndarray) -> np.ndarray:
    alpha = image[:, :, 3:].astype(np.float32) / 255
    return np.rint(image[:, :, :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)
