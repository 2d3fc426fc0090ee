"""From prompts and image tokens to images, and what makes that faster or smaller.

Decoder workers, `sample` and `doctor` all come here. What `prepare_head` switches on changes no weight's name, so
weights can still be loaded and saved. Left out: half precision, which is the policy's dtype.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from blip3o_grpo.policies.blip3o_next.denoising import denoise, path_noise
from blip3o_grpo.policies.blip3o_next.policy import BLIP3oNext
from blip3o_grpo.policies.blip3o_next.prefill import completion_hidden_states

if TYPE_CHECKING:
    from blip3o_grpo.configs.head import FlowGRPOSection


def prepare_head(
    policy: BLIP3oNext,
    *,
    compile: bool = False,
    channels_last: bool = False,
    vae_slicing: bool = False,
) -> BLIP3oNext:
    """Switch on what `configs.decoder.DecoderSection` describes, in place; compilation starts with the first batch."""
    if channels_last:
        policy.sana.to(memory_format=torch.channels_last)
        policy.vae.to(memory_format=torch.channels_last)
    if vae_slicing:
        policy.vae.enable_slicing()
    if compile:
        policy.sana.compile()
        policy.vae.decoder.compile()
    return policy


@torch.no_grad()
def denoise_completions(
    policy: BLIP3oNext,
    prompt_ids: Sequence[Sequence[int]],
    tokens: torch.Tensor,
    seeds: Sequence[int],
    *,
    num_steps: int = 30,
    guidance_scale: float = 2.0,
    guidance_interval: tuple[float, float] = (0.0, 1.0),
    stochastic: FlowGRPOSection | None = None,
) -> torch.Tensor:
    """Latents `[B * K, S, C, h, w]` of image tokens (`denoising.denoise`), those of one completion side by side.

    Args:
        policy: with the parts `ar` and `head`.
        prompt_ids: ids of each completion's prompt, ending in `<im_start><S0>`; equal neighbours are a group.
        tokens: `[B, T]` vocabulary ids.
        seeds: of the diffusion noise, equally many, K, for each completion.
        num_steps: Euler steps.
        guidance_scale: of classifier-free guidance.
        guidance_interval: noise levels between which it acts.
        stochastic: which steps add noise.
    """
    hidden = completion_hidden_states(policy, prompt_ids, tokens)
    hidden = hidden.repeat_interleave(len(seeds) // len(tokens), 0)
    noise = path_noise(policy, seeds, stochastic)
    return denoise(policy, hidden, noise, num_steps, guidance_scale, guidance_interval, stochastic)


def decode_completions(
    policy: BLIP3oNext,
    prompt_ids: Sequence[Sequence[int]],
    tokens: torch.Tensor,
    seeds: Sequence[int],
    **painting: Any,
) -> torch.Tensor:
    """Images `[B * K, H, W, 3]` uint8 of image tokens, on the CPU; arguments as of `denoise_completions`."""
    latents = denoise_completions(policy, prompt_ids, tokens, seeds, **painting)
    return policy.latents_to_images(latents[:, -1]).cpu()


def head_weights(policy: BLIP3oNext) -> dict[str, torch.Tensor]:
    """Those of connector and SANA, by the names that `load_head` takes; they share the policy's memory."""
    return {f"{part}.{n}": v for part in ("connector", "sana") for n, v in getattr(policy, part).state_dict().items()}


def load_head(policy: BLIP3oNext, weights: Mapping[str, torch.Tensor]) -> None:
    """Replace weights of the diffusion head, in place.

    Args:
        weights: tensors by `connector.NAME` and `sana.NAME`.
    """
    for part in ("connector", "sana"):
        own = {name.removeprefix(f"{part}."): value for name, value in weights.items() if name.startswith(f"{part}.")}
        getattr(policy, part).load_state_dict(own)
