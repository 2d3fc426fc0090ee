"""The sampler of the diffusion head: from noise and hidden states to latents, by Euler steps, some with new noise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

import torch

from blip3o_grpo.policies.blip3o_next.stochastic import noisy_step

if TYPE_CHECKING:
    from diffusers import FlowMatchEulerDiscreteScheduler
    from torch import nn

    from blip3o_grpo.configs.head import FlowGRPOSection

Interval = tuple[float, float]
ROUNDING = 1e-6
"""Of noise levels, which are float32: neither .1 nor .7 is one."""


class Head(Protocol):
    """What is asked of a policy here.

    Attributes:
        connector: from the AR part's hidden states `[B, T, D]` to what the transformer reads.
        scheduler: of flow matching.
    """

    connector: nn.Module
    scheduler: FlowMatchEulerDiscreteScheduler

    @property
    def transformer(self) -> Any:
        """A diffusers transformer of latents, called as `SanaTransformer2DModel` is."""

    def head_parts(self) -> dict[str, nn.Module]:
        """The connector and the transformer, by the names that their weights begin with."""

    def reading_once(
        self, condition: torch.Tensor, nothing: torch.Tensor | None
    ) -> AbstractContextManager[Callable[[torch.Tensor, torch.Tensor], torch.Tensor]]:
        """Velocities `[U + B, C, h, w]` of latents at one time step; see `caption_once.captions_read_once`."""


def sampler(policy: Head, num_steps: int, device: torch.device | None = None) -> FlowMatchEulerDiscreteScheduler:
    """The scheduler of so many steps: `timesteps` `[N]`, and `sigmas` `[N + 1]`, the noise levels from 1 to 0."""
    scheduler = policy.scheduler.from_config(policy.scheduler.config)
    scheduler.set_timesteps(sigmas=torch.linspace(1, 1 / num_steps, num_steps).tolist(), device=device)
    return scheduler


def guided_steps(scheduler: FlowMatchEulerDiscreteScheduler, scale: float, interval: Interval) -> list[bool]:
    """Whether guidance acts, for each of the sampler's steps; at the ends of the interval too."""
    low, high = interval[0] - ROUNDING, interval[1] + ROUNDING
    return [scale != 1 and low <= level <= high for level in scheduler.sigmas[:-1].tolist()]


def path_noise(policy: Head, seeds: Sequence[int], stochastic: FlowGRPOSection | None) -> torch.Tensor:
    """Noise `[B, 1 + W, C, h, w]`, float32: what every image starts from, and what its W steps with noise add."""
    size = policy.transformer.config.sample_size
    shape = (policy.transformer.config.in_channels, size, size)
    draws = []
    for seed in seeds:  # one generator an image: independent of the batch's composition
        generator = torch.Generator().manual_seed(seed)
        draws.append(
            [torch.randn(shape, generator=generator) for _ in range(1 + (stochastic.window if stochastic else 0))]
        )
    return torch.stack([torch.stack(draw) for draw in draws]).to(policy.transformer.device)


@torch.no_grad()
def denoise(
    policy: Head,
    hidden: torch.Tensor,
    noise: torch.Tensor,
    num_steps: int = 30,
    guidance_scale: float = 2.0,
    guidance_interval: Interval = (0.0, 1.0),
    stochastic: FlowGRPOSection | None = None,
) -> torch.Tensor:
    """Latents `[B, S, C, h, w]` on the way from noise to picture; the last ones are decoded.

    Without `stochastic` they are the last ones alone (S = 1). With it, the first W steps add noise: kept are the first
    latents, those after each of these steps, and the last ones (S = W + 2).

    Guidance acts in the steps whose noise level (1: noise alone, 0: none) lies in `guidance_interval`; the others
    cost half. The unconditional branch is the connector applied to zeros. Captions are read once for all steps
    (`caption_once`), and the first unconditional step is done once per distinct noise. The head computes in its own
    dtype; latents, guidance and steps stay in the noise's float32, so a bfloat16 head does not round the latents in
    every step.

    Args:
        policy: with the part `head`.
        hidden: `[B, T + 1, D]`, what the AR part says.
        noise: `[B, 1 + W, C, h, w]` of `path_noise`.
        num_steps: of the sampler.
        guidance_scale: of classifier-free guidance; 1: none.
        guidance_interval: noise levels between which it acts.
        stochastic: which steps add noise, and how.
    """
    from blip3o_grpo.policies.blip3o_next.caption_once import distinct_rows

    scheduler = sampler(policy, num_steps, noise.device)
    levels = scheduler.sigmas.tolist()
    guided = guided_steps(scheduler, guidance_scale, guidance_interval)
    nothing = policy.connector(torch.zeros_like(hidden[:1, :1])) if any(guided) else None
    latents, everyone = noise[:, 0], torch.arange(len(noise), device=noise.device)
    window = stochastic.window if stochastic else 0
    path = [latents] if window else []
    with policy.reading_once(policy.connector(hidden), nothing) as velocity_of:
        for number, timestep in enumerate(scheduler.timesteps):
            if guided[number]:
                first, which = distinct_rows(latents) if number == 0 else (everyone, everyone)
                velocity = velocity_of(torch.cat([latents[first], latents]), timestep)
                without, with_condition = velocity[: len(first)][which], velocity[len(first) :]
                velocity = without + guidance_scale * (with_condition - without)
            else:
                velocity = velocity_of(latents, timestep)
            if number < window:
                mean, std = noisy_step(latents, velocity, *levels[number : number + 2], stochastic)
                latents = mean + std * noise[:, 1 + number]
                path.append(latents)
            else:
                latents = scheduler.step(velocity, timestep, latents).prev_sample
    return torch.stack([*path, latents], 1)


def velocity(
    policy: Head,
    hidden: torch.Tensor,
    latents: torch.Tensor,
    timesteps: torch.Tensor,
    guided: torch.Tensor,
    guidance_scale: float,
) -> torch.Tensor:
    """The sampler's velocity `[B, C, h, w]`, float32, as something to learn: gradients reach connector and transformer.

    Args:
        policy: with the part `head`.
        hidden: `[B, T + 1, D]`.
        latents: `[B, C, h, w]`.
        timesteps: `[B]`, the scheduler's.
        guided: `[B]` bool, where guidance acts.
        guidance_scale: of it.
    """

    def of(condition: torch.Tensor, rows: torch.Tensor | slice) -> torch.Tensor:
        return policy.transformer(
            hidden_states=latents[rows].to(policy.transformer.dtype),
            timestep=timesteps[rows],
            encoder_hidden_states=condition,
        ).sample.float()

    with_condition = of(policy.connector(hidden), slice(None))
    if not guided.any():
        return with_condition
    rows = guided.nonzero()[:, 0]
    nothing = policy.connector(torch.zeros_like(hidden[:1, :1]))  # one position: all would say the same
    more = with_condition[rows] - of(nothing.expand(len(rows), -1, -1), rows)
    return with_condition.index_add(0, rows, (guidance_scale - 1) * more)
