"""The reward of docs/tutorial.md: purple signs that hang high."""

import numpy as np


def hangs_high(images, prompts, metadata, color=(120, 50, 160), reach=60):
    """1 where the sign's middle is in the upper 30 % of the picture, less below, 0 from 60 % on or without a sign."""
    scores = []
    for image in images:
        sign = np.linalg.norm(image.astype(float) - color, axis=2) < reach  # [H, W]: pixels of about this colour
        height = np.nonzero(sign)[0].mean() / image.shape[0] if sign.mean() > 0.05 else 1.0
        scores.append(float(np.clip((0.6 - height) / 0.3, 0, 1)))
    return scores
