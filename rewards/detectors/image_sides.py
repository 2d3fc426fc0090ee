"""The `image_sides` option of both Mask2Former detectors."""

from __future__ import annotations

from collections.abc import Sequence

from blip3o_grpo.rewards.types import RewardError

IMAGE_SIDES = (1333, 800)
"""Longer and shorter side (px) an image is scaled to fit into in the official evaluation."""


def check_image_sides(image_sides: Sequence[int]) -> None:
    """Two sides in px, the longer first, at least 32 each; raises RewardError."""
    if len(image_sides) != 2 or not image_sides[0] >= image_sides[1] >= 32:
        raise RewardError(f"image_sides is {list(image_sides)}; it must be two sides in px, the longer first, from 32")
