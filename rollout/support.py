"""The action space inside vLLM: image tokens and nothing else.

vLLM's `allowed_token_ids` would do the same with a list of 65,536 ids in every request; this is two slices a step.
"""

from __future__ import annotations

from typing import Any

import torch
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor


class ImageTokenSupport(LogitsProcessor):
    """Gives every other token probability zero, so log-probabilities are over the image vocabulary."""

    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool):
        config = vllm_config.model_config.hf_config
        self.start = config.image_start_token_id
        self.stop = self.start + config.num_image_tokens

    def is_argmax_invariant(self) -> bool:
        """False: it changes which token is the most likely."""
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """Nothing to keep: all requests have the same support."""

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """Mask logits `[B, V]` in place."""
        logits[:, : self.start] = -torch.inf
        logits[:, self.stop :] = -torch.inf
        return logits
