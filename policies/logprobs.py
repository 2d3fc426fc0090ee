"""Log-probabilities of image tokens over the image vocabulary only.

Text rows of `lm_head` (about 150,000 of 217,000 at full size) take no part: the sampler cannot draw them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from policies.config import ImageTokens


def position_ids(mask: torch.Tensor) -> torch.Tensor:
    """Positions `[B, L]` that count real tokens only, so left padding changes nothing."""
    return (mask.long().cumsum(-1) - 1).clamp(min=0)


def image_logprobs(
    ar: nn.Module,
    ids: torch.Tensor,
    mask: torch.Tensor,
    image_tokens: ImageTokens,
    temperature: float = 1.0,
    entropy: bool = False,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Log-probability (nats) of the last `T = image_tokens.num_tokens` ids of each row, given what precedes them.

    Args:
        ar: Qwen3ForCausalLM (unwrapped).
        ids: `[B, L + T]` prompt and image tokens, left-padded.
        mask: `[B, L + T]`, 1 = real token.
        temperature: divides the logits, as in the sampler.
        entropy: also return the policy's entropy at each position.

    Returns:
        Log-probabilities `[B, T]` in float32 and entropies `[B, T]` (or None).
    """
    length = image_tokens.num_tokens
    hidden = ar.model(
        input_ids=ids, attention_mask=mask, position_ids=position_ids(mask), use_cache=False
    ).last_hidden_state[:, -length - 1 : -1]
    rows = ar.lm_head.weight[image_tokens.start : image_tokens.stop]
    logprobs = F.log_softmax(F.linear(hidden, rows).float() / temperature, dim=-1)  # [B, T, K]
    chosen = logprobs.gather(-1, (ids[:, -length:] - image_tokens.start).unsqueeze(-1)).squeeze(-1)
    return chosen, -(logprobs.exp() * logprobs).sum(-1) if entropy else None
