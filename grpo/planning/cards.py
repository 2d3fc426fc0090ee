"""GPU cards by name, from their makers' data sheets: what a computed prediction divides by. Numbers only."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass

from blip3o_grpo.configs import ConfigError


@dataclass(frozen=True)
class Card:
    """Ceilings of one card."""

    flops: float
    """Floating-point operations per second in bfloat16, dense."""
    bytes_per_s: float
    """Of its memory."""
    memory_gb: float


CARDS = {
    "a100": Card(312e12, 2.04e12, 80),
    "h100": Card(989e12, 3.35e12, 80),
    "h200": Card(989e12, 4.8e12, 141),
}
SHARE_OF_FLOPS = 0.45
"""Of a card's arithmetic that large models in PyTorch are taken to reach; an assumption until a card was measured."""
SHARE_OF_BANDWIDTH = 0.5
"""Of a card's bandwidth that a decode step of vLLM is taken to reach; an assumption as well."""
OCR_S_PER_MEGAPIXEL = 0.4
"""Seconds of one CPU core to detect and read the text of a picture of 1,024 x 1,024 px; an assumption as well."""


def card(name: str) -> Card:
    """The card of this name.

    Raises:
        ConfigError: it is not known.
    """
    if name not in CARDS:
        near = difflib.get_close_matches(name.lower(), CARDS, n=1, cutoff=0)
        raise ConfigError(f"--card {name}: not known; did you mean {near[0]}? known: {', '.join(CARDS)}")
    return CARDS[name]


def card_of_device(device: str) -> str | None:
    """Name in `CARDS` of a GPU as PyTorch calls it, such as `NVIDIA H100 80GB HBM3`; None: not known."""
    words = re.split(r"[\s-]+", device.lower())
    return next((name for name in CARDS if name in words), None)
