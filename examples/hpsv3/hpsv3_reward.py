"""HPSv3 as a reward, by its authors' own package, in an environment of its own. The README beside it says how."""

from __future__ import annotations

import importlib

from PIL import Image

from blip3o_grpo.rewards import RewardBatch

BATCH = 8
"""Images that go through the 7B network at once."""


class HPSv3:
    """Mean of the preference that HPSv3 predicts; its spread, which it predicts too, is not used. Unbounded.

    Ma et al. 2025, https://arxiv.org/abs/2508.03789, https://github.com/MizzenAI/HPSv3.

    Args:
        checkpoint: file of its weights; None: the package gets `HPSv3.safetensors` from the hub.
        device: of torch.
    """

    def __init__(self, checkpoint: str | None = None, device: str = "cuda") -> None:
        package = importlib.import_module("hpsv3")
        self._model = package.HPSv3RewardInferencer(checkpoint_path=checkpoint, device=device)

    def __call__(self, batch: RewardBatch) -> list[float | None]:
        """One score per image."""
        scores: list[float | None] = []
        for start in range(0, len(batch), BATCH):
            part = batch[start : start + BATCH]
            # By name: the package's version 1.0.0 and its repository have these two in different orders.
            found = self._model.reward(
                prompts=list(part.prompts), image_paths=[Image.fromarray(image) for image in part.images]
            )
            scores += [row[0].item() for row in found]
        return scores
