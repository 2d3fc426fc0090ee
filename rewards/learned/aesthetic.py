"""`aesthetic`: how much people like a picture by itself, from LAION's improved aesthetic predictor. Reads no prompt."""

from __future__ import annotations

import numpy as np

from blip3o_grpo.rewards.clip.model import ClipModel
from blip3o_grpo.rewards.images import as_rgb
from blip3o_grpo.rewards.learned.head import score_head
from blip3o_grpo.rewards.learned.weights import find_file, load_tensors
from blip3o_grpo.rewards.types import RewardBatch

WEIGHTS = "trl-lib/ddpo-aesthetic-predictor"
FILE = "aesthetic-model.pth"
"""In that repository: a copy of `sac+logos+ava1-l14-linearMSE.pth` of the authors' own."""
_PLACE = "aesthetic: weights"


class AestheticReward:
    """Five linear layers over the image embedding of unit length of CLIP ViT-L/14; about 1 to 10.

    The predictor and its weights: https://github.com/christophschuhmann/improved-aesthetic-predictor. It was trained to
    predict mean ratings from 1 to 10 and is not bounded to them.

    Args:
        weights: of the head: a file, or `ORG/NAME` on the hub that holds `aesthetic-model.pth`, in the local cache.
        model: open_clip's name of the image encoder that the head was trained on.
        pretrained: open_clip's tag of its weights, or a file; see `blip3o_grpo.rewards.clip.model.ClipModel`.
        device: `cpu`, `cuda` or `cuda:N`.
        dtype: `float32` or `bfloat16`, of the encoder; the head computes in float32.

    Raises:
        RewardError: weights that are not on this machine or do not fit, or as `ClipModel`.
    """

    def __init__(
        self,
        weights: str = WEIGHTS,
        model: str = "ViT-L-14",
        pretrained: str = "openai",
        device: str = "cpu",
        dtype: str = "float32",
    ) -> None:
        tensors = load_tensors(find_file(weights, FILE, _PLACE), _PLACE)
        self._clip = ClipModel(model, pretrained, device, dtype)
        width = self._clip.encode_images([np.zeros((1, 1, 3), np.uint8)]).shape[-1]  # not all encoders tell it
        self._head = score_head(tensors, width, _PLACE).to(device)

    @staticmethod
    def check_options(
        weights: str = WEIGHTS,
        model: str = "ViT-L-14",
        pretrained: str = "openai",
        device: str = "cpu",
        dtype: str = "float32",
    ) -> None:
        """Check option values and that the weights are there, without loading them; raises RewardError."""
        find_file(weights, FILE, _PLACE)
        ClipModel.check_options(model, pretrained, device, dtype)

    def __call__(self, batch: RewardBatch) -> list[float | None]:
        """One score per image, whatever its prompt."""
        import torch

        if not len(batch):
            return []
        embeddings = self._clip.encode_images([as_rgb(image) for image in batch.images])
        with torch.inference_mode():
            return self._head(embeddings).squeeze(-1).tolist()
