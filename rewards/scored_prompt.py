"""A prompt of an evaluation with its images, their scores and what the reward said about each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class ScoredPrompt:
    """One prompt of an evaluation, for a suite's table and its own result format."""

    prompt: str
    metadata: Mapping[str, Any]
    images: Sequence[np.ndarray]
    """Each `[H, W, 3]` uint8, RGB."""
    scores: Sequence[float | None]
    explanations: Sequence[Mapping[str, Any] | None]
    id: str = ""
    """Of the prompt."""
