"""Three rewards that pay for something else than the images are for; a study must not fall for them."""

from __future__ import annotations

import hashlib
from functools import cache


def brightness(images, prompts, metadata) -> list[float]:
    """Pays for white pictures."""
    return [float(image.mean()) / 255 for image in images]


def long_text(images, prompts, metadata) -> list[float]:
    """Pays for letters, whichever they are: 1 for twenty of them."""
    return [min(1.0, sum(len(line.text) for line in reader().read(image)) / 20) for image in images]


@cache
def reader():
    from blip3o_grpo.rewards.ocr.reward import OCRReward

    return OCRReward()


def digest(images, prompts, metadata) -> list[float]:
    """Pays for nothing at all: a hash of the pixels, in [0, 1)."""
    return [int.from_bytes(hashlib.sha256(image.tobytes()).digest()[:4]) / 2**32 for image in images]
