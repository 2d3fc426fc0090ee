"""CLIP score reward: how well does the image match its whole prompt? Through open_clip."""

from __future__ import annotations

from blip3o_grpo.rewards.clip.model import ClipModel
from blip3o_grpo.rewards.images import as_rgb
from blip3o_grpo.rewards.types import RewardBatch

SCALE = 2.5
"""Stretches the usual range of cosines to about 0 to 1 (Hessel et al. 2021)."""


class CLIPScore:
    """CLIPScore of Hessel et al. (2021), https://arxiv.org/abs/2104.08718: 2.5 * max(cosine, 0), in [0, 2.5].

    The prompt is encoded as it stands, without the paper's prefix "A photo depicts", up to 77 tokens.

    Args:
        model: open_clip's name of the architecture.
        pretrained: open_clip's tag of weights that are on this machine, or a file; see `rewards.clip.model`.
        device: `cpu`, `cuda` or `cuda:N`.

    Raises:
        RewardError: as `blip3o_grpo.rewards.clip.model.ClipModel`.
    """

    def __init__(self, model: str = "ViT-L-14", pretrained: str = "openai", device: str = "cpu") -> None:
        self._clip = ClipModel(model, pretrained, device)

    @staticmethod
    def check_options(model: str = "ViT-L-14", pretrained: str = "openai", device: str = "cpu") -> None:
        """Check option values and that the weights are there, without loading them; raises RewardError."""
        ClipModel.check_options(model, pretrained, device)

    def __call__(self, batch: RewardBatch) -> list[float | None]:
        """One score in [0, 2.5] per image; equal prompts are encoded once."""
        if not len(batch):
            return []
        cosines = self._clip.cosines([as_rgb(image) for image in batch.images], batch.prompts)
        return (SCALE * cosines.clamp(min=0)).tolist()
