"""Flow-GRPO's loss (arXiv 2505.05470): the clipped ratio of step probabilities, for steps of the sampler with noise."""

from __future__ import annotations

import torch

ADVANTAGE_CLIP = 5.0


def flow_grpo_loss(
    logprobs: torch.Tensor,
    old_logprobs: torch.Tensor,
    advantages: torch.Tensor,
    moved: torch.Tensor | None,
    *,
    epsilon: float,
    kl: float,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Loss `[B]` of every step, and what is logged of it, detached.

    Args:
        logprobs: `[B]` of the head that learns (`stochastic.step_logprob`).
        old_logprobs: of the head that painted.
        advantages: `[B]`, of the images.
        moved: `[B]`, mean squared distance of the velocity to the starting head's; None without `kl`.
        epsilon: clip range of the ratio.
        kl: weight of `moved`.
    """
    ratio = torch.exp(logprobs - old_logprobs.detach())
    bounded = advantages.clamp(-ADVANTAGE_CLIP, ADVANTAGE_CLIP)
    loss = -torch.minimum(ratio * bounded, ratio.clamp(1 - epsilon, 1 + epsilon) * bounded)
    outside = ((ratio - 1).abs() > epsilon).float()
    metrics = {"head/clip_ratio": outside.detach()}
    if moved is not None:
        loss = loss + kl * moved
        metrics["head/kl"] = moved.detach()
    return loss, metrics
