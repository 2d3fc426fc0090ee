"""Steps of the flow sampler that add noise, and the probability of what they drew. Pure functions, computed in float32.

A latent at noise level s (1: noise alone, 0: none) is (1 - s) x0 + s e, the velocity v = e - x0, and a step goes from s
to a lower s'. Both ways keep the sampler's distribution at every level as far as the velocity is right:

    sde  Flow-GRPO (arXiv 2505.05470), with dt = s' - s < 0 and sigma = a sqrt(s / (1 - s)):
         mean = x (1 + sigma^2 / (2 s) dt) + v (1 + sigma^2 (1 - s) / (2 s)) dt,  std = sigma sqrt(-dt)
    cps  coefficients-preserving sampling (arXiv 2509.05952):
         mean = (1 - s') (x - s v) + s' cos(eta pi / 2) (x + (1 - s) v),          std = s' sin(eta pi / 2)

With a or eta 0 both are Euler's step. A sampler's steps are long, so `sde` leaves more noise in a latent than its level
says; what the last step leaves stays in the picture.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from blip3o_grpo.configs.head import FlowGRPOSection


def noisy_step(
    latents: torch.Tensor, velocity: torch.Tensor, level: float, next_level: float, how: FlowGRPOSection
) -> tuple[torch.Tensor, float]:
    """Mean `[B, C, h, w]` and standard deviation of the latents after one step.

    Args:
        latents: `[B, C, h, w]` at `level`.
        velocity: of them.
        level: in (0, 1]; at 1, where sigma has a pole, `next_level` takes its place below the root.
        next_level: in [0, level).
        how: which of the two, and a or eta.
    """
    x, v = latents.float(), velocity.float()
    if how.sampler == "cps":
        angle = how.noise_level * math.pi / 2
        mean = (1 - next_level) * (x - level * v) + next_level * math.cos(angle) * (x + (1 - level) * v)
        return mean, next_level * math.sin(angle)
    dt = next_level - level
    variance = how.noise_level**2 * level / (1 - (next_level if level == 1 else level))
    mean = x * (1 + variance / (2 * level) * dt) + v * (1 + variance * (1 - level) / (2 * level)) * dt
    return mean, math.sqrt(variance * -dt)


def step_logprob(after: torch.Tensor, mean: torch.Tensor, std: float) -> torch.Tensor:
    """Log-density (nats) of the latents after a step, `[B]`: the mean over their values, as in Flow-GRPO."""
    squares = ((after.float() - mean) / std).square().flatten(1).mean(1)
    return -0.5 * squares - math.log(std) - 0.5 * math.log(2 * math.pi)
