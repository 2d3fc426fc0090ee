"""Sampling with plain transformers: slow, dependency-free, used where no cluster runs (build, `doctor`, benchmarks)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from blip3o_grpo.policies.blip3o_next.policy import BLIP3oNext
from blip3o_grpo.policies.blip3o_next.positions import position_ids


@torch.no_grad()
def sample_image_tokens(
    policy: BLIP3oNext,
    prompt_ids: Sequence[Sequence[int]],
    *,
    temperature: float = 1.0,
    top_p: float = 1.0,
    top_k: int = 0,
    seed: int = 0,
) -> torch.Tensor:
    """Draw exactly `num_tokens` image tokens for each prompt: vocabulary ids `[B, T]`, image tokens only.

    Args:
        prompt_ids: ids ending in `<im_start><S0>`.
        temperature: divides the logits.
        top_p, top_k: cut the distribution (`cut_logits`).
        seed: of the whole batch's draws.
    """
    space = policy.image_tokens
    rows = policy.ar.lm_head.weight[space.start : space.stop]
    generator = torch.Generator(device=rows.device).manual_seed(seed)
    ids, mask = (tensor.to(rows.device) for tensor in policy.prompts.pad(prompt_ids))
    positions, cache, drawn = position_ids(mask), None, []
    for _ in range(space.num_tokens):
        output = policy.ar.model(
            input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True
        )
        cache = output.past_key_values
        logits = F.linear(output.last_hidden_state[:, -1], rows).float() / temperature
        probabilities = F.softmax(cut_logits(logits, top_p, top_k), dim=-1)
        ids = torch.multinomial(probabilities, 1, generator=generator) + space.start
        mask = torch.cat([mask, torch.ones_like(ids)], 1)
        positions = positions[:, -1:] + 1
        drawn.append(ids)
    return torch.cat(drawn, 1)


def cut_logits(logits: torch.Tensor, top_p: float = 1.0, top_k: int = 0) -> torch.Tensor:
    """Logits `[..., K]` with -inf outside the `top_k` likeliest and, of these, the fewest that together have `top_p`.

    Args:
        top_p: above 0; 1: no cut.
        top_k: 0: no cut. Tokens as likely as the last one that counts stay too.
    """
    if 0 < top_k < logits.shape[-1]:
        least = logits.topk(top_k, dim=-1).values[..., -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    if top_p < 1:
        ordered, order = logits.sort(dim=-1, descending=True)
        before = ordered.softmax(-1).cumsum(-1).roll(1, -1)
        before[..., 0] = 0  # the likeliest token always stays
        logits = logits.masked_fill((before >= top_p).scatter(-1, order, before >= top_p), -torch.inf)
    return logits
