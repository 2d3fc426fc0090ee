"""From prompts and image tokens to images, and what makes that faster or smaller.

Decoder workers, `sample` and `doctor` all come here. What `prepare_head` switches on changes no weight's name, so
weights can still be loaded and saved. Left out: half precision, which is the policy's dtype.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from blip3o_grpo.policies.blip3o_next.policy import BLIP3oNext
from blip3o_grpo.policies.blip3o_next.prefill import completion_hidden_states


def prepare_head(
    policy: BLIP3oNext,
    *,
    compile: bool = False,
    channels_last: bool = False,
    vae_slicing: bool = False,
    vae_tiling: bool = False,
) -> BLIP3oNext:
    """Switch on what `configs.decoder.DecoderSection` describes, in place; compilation starts with the first batch."""
    if channels_last:
        policy.sana.to(memory_format=torch.channels_last)
        policy.vae.to(memory_format=torch.channels_last)
    if vae_slicing:
        policy.vae.enable_slicing()
    if vae_tiling:
        policy.vae.enable_tiling()
    if compile:
        policy.sana.compile()
        policy.vae.decoder.compile()
    return policy


@torch.no_grad()
def decode_completions(
    policy: BLIP3oNext,
    prompt_ids: Sequence[Sequence[int]],
    tokens: torch.Tensor,
    seeds: Sequence[int],
    *,
    num_steps: int = 30,
    guidance_scale: float = 2.0,
    guidance_interval: tuple[float, float] = (0.0, 1.0),
) -> torch.Tensor:
    """Images `[B, H, W, 3]` uint8 of image tokens, on the CPU.

    Args:
        policy: with the parts `ar` and `head`.
        prompt_ids: ids of each image's prompt, ending in `<im_start><S0>`; equal neighbours are a group.
        tokens: `[B, T]` vocabulary ids.
        seeds: of the diffusion noise, one per image.
        num_steps: Euler steps.
        guidance_scale: of classifier-free guidance.
        guidance_interval: noise levels between which it acts (`BLIP3oNext.denoise`).
    """
    hidden = completion_hidden_states(policy, prompt_ids, tokens)
    return policy.decode(hidden, policy.noise(seeds), num_steps, guidance_scale, guidance_interval).cpu()
