"""The reward of docs/tutorial.md: teal boards that hang high."""

import numpy as np


def hangs_high(images, prompts, metadata, color=(15, 120, 120), reach=60):
    """1 where the board's middle is in the upper 30 % of the picture, less below, 0 from 60 % on or without a board."""
    scores = []
    for image in images:
        board = np.linalg.norm(image.astype(float) - color, axis=2) < reach  # [H, W]: pixels of about this colour
        height = np.nonzero(board)[0].mean() / image.shape[0] if board.mean() > 0.05 else 1.0
        scores.append(float(np.clip((0.6 - height) / 0.3, 0, 1)))
    return scores
