"""A policy as rollouts and trainer hold it in their hands, whichever kind it is (`docs/own-model.md`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from blip3o_grpo.policies.blip3o_next.denoising import Head

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from blip3o_grpo.policies.blip3o_next.config import ImageTokens
    from blip3o_grpo.policies.blip3o_next.prompt_encoder import PromptEncoder


class Policy(Head, Protocol):
    """A loaded policy.

    Attributes:
        ar: the part that reads prompts.
        prompts: the prompt format and tokenizer.
    """

    ar: PreTrainedModel
    prompts: PromptEncoder

    @property
    def image_tokens(self) -> ImageTokens:
        """The action space; `num_tokens` is 0 where the AR part samples nothing."""

    def conditions(self, prompt_ids: Sequence[Sequence[int]], tokens: torch.Tensor) -> torch.Tensor:
        """What the head paints from, `[B, T, D]`, of each row's prompt and tokens `[B, num_tokens]`."""

    def load_ar(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Replace the AR part's weights, in place."""

    def latents_to_images(self, latents: torch.Tensor) -> torch.Tensor:
        """RGB images `[B, H, W, 3]` uint8 of latents `[B, C, h, w]`."""

    def save_pretrained(self, path: str | Path) -> None:
        """Write a folder that the kind's `load` reads."""
