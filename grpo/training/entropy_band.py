"""The entropy of the tokens held in a band (`trainer.entropy_band`): a bonus below it, a penalty above it.

Too little entropy and a group's images are all alike; too much and they are noise (EG-GRPO, arXiv 2604.02355, found the
reward to fall as entropy rises). Inside the band nothing pushes.
"""

from __future__ import annotations


def band_coefficient(coefficient: float, band: tuple[float, float], entropy: float | None) -> float:
    """By what the loss multiplies the mean entropy, of which it is less so much: above 0 it rises.

    Args:
        coefficient: `trainer.entropy_coef`.
        band: lowest and highest mean entropy of a token (nats).
        entropy: of the step before; None: there is none, and nothing pushes.
    """
    low, high = band
    if entropy is None or low <= entropy <= high:
        return 0.0
    return coefficient if entropy < low else -coefficient
