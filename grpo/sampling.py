"""Images straight from a policy in this process, for a quick look; training samples with vLLM (see `rollout/`)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from policies import BLIP3oNext, position_ids


@torch.no_grad()
def sample_tokens(
    policy: BLIP3oNext, prompts: Sequence[Sequence[int]], seed: int, temperature: float = 1.0
) -> torch.Tensor:
    """Draw image tokens `[B, T]` (vocabulary ids) after encoded prompts, over the image vocabulary only."""
    ids, mask = policy.prompts.pad(prompts)
    positions = position_ids(mask)
    generator = torch.Generator().manual_seed(seed)
    rows = policy.ar.lm_head.weight[policy.image_tokens.start : policy.image_tokens.stop]
    cache, drawn = None, []
    for _ in range(policy.image_tokens.num_tokens):
        output = policy.ar.model(
            input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True
        )
        cache = output.past_key_values
        logits = (output.last_hidden_state[:, -1] @ rows.T).float() / temperature
        ids = torch.multinomial(logits.softmax(-1), 1, generator=generator) + policy.image_tokens.start
        drawn.append(ids)
        mask = torch.cat([mask, torch.ones_like(ids)], dim=1)
        positions = positions[:, -1:] + 1
    return torch.cat(drawn, dim=1)


@torch.no_grad()
def paint(
    policy: BLIP3oNext,
    prompts: Sequence[Sequence[int]],
    tokens: torch.Tensor,
    noise_seeds: Sequence[int],
    num_steps: int,
    guidance_scale: float,
) -> list[np.ndarray]:
    """Images `[H, W, 3]` uint8 of encoded prompts and their tokens `[B, T]`, one noise seed each."""
    ids, mask = policy.prompts.pad(prompts)
    ids, mask = torch.cat([ids, tokens], dim=1), torch.cat([mask, torch.ones_like(tokens)], dim=1)
    hidden = policy.hidden_states(ids, mask)
    images = policy.decode(hidden, policy.noise(noise_seeds), num_steps, guidance_scale)
    return list(images.cpu().numpy())
