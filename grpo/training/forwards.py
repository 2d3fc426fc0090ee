"""What a model is asked for in training: log-probs of image tokens or of plain texts, in place of its own forward.

The forward replaces the model's own, so that calls still go through the wrapped module, and DDP sees them.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import TYPE_CHECKING

import torch
from transformers import Qwen3ForCausalLM

from blip3o_grpo.configs.training import DDPSection, TrainerSection
from blip3o_grpo.policies import ImageTokens, image_logprobs
from blip3o_grpo.policies.blip3o_next.text import text_logprobs
from blip3o_grpo.training.text_kl import TextForward

if TYPE_CHECKING:
    from accelerate import Accelerator


def training_forward(
    ar: Qwen3ForCausalLM, tokens: ImageTokens, section: TrainerSection, temperature: float
) -> Callable[..., tuple | torch.Tensor]:
    """Forward of a model that is asked for nothing but image-token log-probs (and their entropy), or for those of
    plain texts.

    Args:
        ar: the policy, with its adapters where it has some.
        tokens: the action space.
        section: says whether a group's prompt is read once.
        temperature: of sampling.
    """
    # Checkpointing keeps no keys and values; sharded weights are gathered once a forward pass, not once a call.
    share = isinstance(section.parallel, DDPSection) and not section.gradient_checkpointing

    def forward(
        input_ids: torch.Tensor, attention_mask: torch.Tensor, entropy: bool = False, texts: bool = False
    ) -> tuple | torch.Tensor:
        if texts:
            return text_logprobs(ar, input_ids, attention_mask, tokens)
        return image_logprobs(ar, input_ids, attention_mask, tokens, temperature, entropy, share_prompts=share)

    return forward


def text_forward(model: torch.nn.Module, accelerator: Accelerator, adapters: bool = True) -> TextForward:
    """What a model with `training_forward` says of texts.

    Args:
        model: policy or reference, wrapped or not.
        accelerator: says the precision.
        adapters: False: without them, as the policy was when it started.
    """

    def forward(ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        disabled = nullcontext() if adapters else accelerator.unwrap_model(model).disable_adapter()
        with disabled, accelerator.autocast():
            return model(ids, mask, texts=True)

    return forward
