"""From prompts and image tokens to images, and what makes that faster or smaller.

Decoder workers, `sample` and `doctor` all come here. What `prepare_head` switches on changes no weight's name, so
weights can still be loaded and saved. Left out: half precision, which is the policy's dtype.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from blip3o_grpo.policies.blip3o_next.denoising import denoise, path_noise

if TYPE_CHECKING:
    from blip3o_grpo.configs.head import FlowGRPOSection
    from blip3o_grpo.policies.blip3o_next.policy import BLIP3oNext
    from blip3o_grpo.policies.types import Policy


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
    policy: Policy,
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
        policy: with all that paints.
        prompt_ids: ids of each completion's prompt, ending in the image's opening; equal neighbours are a group.
        tokens: `[B, T]` vocabulary ids; T is 0 where the policy samples none.
        seeds: of the diffusion noise, equally many, K, for each completion.
        num_steps: Euler steps.
        guidance_scale: of classifier-free guidance.
        guidance_interval: noise levels between which it acts.
        stochastic: which steps add noise.
    """
    hidden = policy.conditions(prompt_ids, tokens)
    hidden = hidden.repeat_interleave(len(seeds) // len(tokens), 0)
    noise = path_noise(policy, seeds, stochastic)
    return denoise(policy, hidden, noise, num_steps, guidance_scale, guidance_interval, stochastic)


def decode_completions(
    policy: Policy,
    prompt_ids: Sequence[Sequence[int]],
    tokens: torch.Tensor,
    seeds: Sequence[int],
    **painting: Any,
) -> torch.Tensor:
    """Images `[B * K, H, W, 3]` uint8 of image tokens, on the CPU; arguments as of `denoise_completions`."""
    latents = denoise_completions(policy, prompt_ids, tokens, seeds, **painting)
    return policy.latents_to_images(latents[:, -1]).cpu()


def head_weights(policy: Policy) -> dict[str, torch.Tensor]:
    """Those of the diffusion head, by the names that `load_head` takes; they share the policy's memory."""
    parts = policy.head_parts().items()
    return {f"{part}.{name}": value for part, module in parts for name, value in module.state_dict().items()}


def load_head(policy: Policy, weights: Mapping[str, torch.Tensor]) -> None:
    """Replace weights of the diffusion head, in place.

    Args:
        weights: tensors by PART.NAME, parts as of `head_parts`.
    """
    for part, module in policy.head_parts().items():
        own = {name.removeprefix(f"{part}."): value for name, value in weights.items() if name.startswith(f"{part}.")}
        module.load_state_dict(own)
