"""Colourfulness of images: the measure of Hasler and Suesstrunk (2003), as a reward of blip3o-grpo."""

import numpy as np

from blip3o_grpo.rewards import RewardBase, RewardBatch, RewardError


class Colorfulness(RewardBase):
    """Scores in [0, 1): 0 for grey images, 1/2 at `midpoint` (the paper calls 45 "quite colourful")."""

    def __init__(self, midpoint: float = 45.0) -> None:
        self.check_options(midpoint)
        self.midpoint = midpoint

    @staticmethod
    def check_options(midpoint: float = 45.0) -> None:
        if midpoint <= 0:
            raise RewardError(f"colorfulness midpoint is {midpoint}; it must be above 0")

    def __call__(self, batch: RewardBatch) -> list[float | None]:
        return [self._score(image.astype(np.float64)) for image in batch.images]

    def _score(self, image: np.ndarray) -> float:
        red, green, blue = np.moveaxis(image, -1, 0)
        opponents = np.stack([red - green, (red + green) / 2 - blue])  # [2, H, W]
        value = np.linalg.norm(opponents.std((1, 2))) + 0.3 * np.linalg.norm(opponents.mean((1, 2)))
        return float(value / (value + self.midpoint))
