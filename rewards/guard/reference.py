"""Guard of the rest of the image: stays near 1 while images keep the look of the starting policy's, else falls.

A reward for text alone is best served by black letters on nothing: public runs erased the backgrounds. This one knows
nothing of text. It notes the range of simple image statistics (colours, contrast, chroma, edges, colour entropy; whole
picture and border) over images of the starting policy, and marks images down by how far they leave it. It cannot see
changes that leave these statistics alone, such as one object swapped for another.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from blip3o_grpo.rewards.guard.image_statistics import STATISTICS, image_statistics
from blip3o_grpo.rewards.types import RewardBatch, RewardError


class ReferenceGuard:
    """Scores each image 1 / (1 + sum of squared excesses) over its statistics.

    The excess of a statistic is its distance from the reference band, in units of `softness` times the band's width;
    inside the band it is 0. The band is the range between two quantiles of the reference images. The heavy tail keeps
    the siblings of a group apart even when all are far outside.

    Args:
        quantile: share of the reference images left out at either end of each band, in [0, 0.25).
        softness: how far outside the band, in band widths, one statistic alone brings the score to 1/2.
        min_width: smallest width of a band, since a statistic that hardly varies would punish noise, > 0.

    Raises:
        RewardError: an option out of range.
    """

    is_guard = True
    expects_spread = False
    min_reference_images = 8

    def __init__(self, quantile: float = 0.01, softness: float = 0.5, min_width: float = 0.05) -> None:
        self.check_options(quantile, softness, min_width)
        self.quantile = quantile
        self.softness = softness
        self.min_width = min_width
        self._low: np.ndarray | None = None  # [len(STATISTICS)]
        self._high: np.ndarray | None = None

    @staticmethod
    def is_outcome(**_: Any) -> bool:
        """It falls off gradually."""
        return False

    @staticmethod
    def check_options(quantile: float = 0.01, softness: float = 0.5, min_width: float = 0.05) -> None:
        """Check option values; raises RewardError."""
        if not 0 <= quantile < 0.25:
            raise RewardError(f"reference_guard quantile is {quantile}; it must lie in [0, 0.25)")
        if softness <= 0 or min_width <= 0:
            raise RewardError(f"reference_guard softness ({softness}) and min_width ({min_width}) must be above 0")

    def fit_reference(self, batch: RewardBatch) -> None:
        """Note the bands of the starting policy's images; prompts and metadata are not used.

        Raises:
            RewardError: fewer than 8 images.
        """
        if len(batch) < self.min_reference_images:
            raise RewardError(
                f"reference_guard needs at least {self.min_reference_images} images of the starting policy, "
                f"got {len(batch)}"
            )
        low, high = np.quantile(image_statistics(batch.images), (self.quantile, 1 - self.quantile), axis=0)
        missing = np.maximum(self.min_width - (high - low), 0)
        self._low, self._high = low - missing / 2, high + missing / 2

    def __call__(self, batch: RewardBatch) -> list[float | None]:
        """Scores in [0, 1].

        Raises:
            RewardError: not fitted yet.
        """
        return (1 / (1 + (self._excess(batch) ** 2).sum(axis=1))).tolist()

    def explain(self, batch: RewardBatch) -> list[dict[str, float]]:
        """Per image, the statistics outside their band and their excess, largest first."""
        named = [dict(zip(STATISTICS, row.tolist(), strict=True)) for row in self._excess(batch)]
        return [dict(sorted(((k, v) for k, v in row.items() if v > 0), key=lambda item: -item[1])) for row in named]

    def _excess(self, batch: RewardBatch) -> np.ndarray:
        """`[N, len(STATISTICS)]`, 0 inside the band."""
        if self._low is None or self._high is None:
            raise RewardError(
                "reference_guard has no reference yet: call fit_reference with the starting policy's images"
            )
        values = image_statistics(batch.images)
        outside = np.maximum(self._low - values, 0) + np.maximum(values - self._high, 0)
        return outside / (self.softness * (self._high - self._low))

    def state_dict(self) -> dict[str, Any]:
        """The bands by statistic, as plain floats; empty if not fitted."""
        if self._low is None or self._high is None:
            return {}
        bands = zip(STATISTICS, self._low.tolist(), self._high.tolist(), strict=True)
        return {name: [low, high] for name, low, high in bands}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore `state_dict()`.

        Raises:
            RewardError: the state holds other statistics than this version computes.
        """
        if not state:
            self._low = self._high = None
            return
        if set(state) != set(STATISTICS):
            odd = sorted(set(state) ^ set(STATISTICS))
            raise RewardError(f"reference_guard state does not fit this version: {', '.join(odd)}")
        bands = np.array([state[name] for name in STATISTICS], dtype=np.float64)
        self._low, self._high = bands[:, 0], bands[:, 1]
