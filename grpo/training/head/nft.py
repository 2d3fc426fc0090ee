"""DiffusionNFT's loss (arXiv 2509.16117): rewards make a velocity of a better and of a worse head, on clean latents.

With x_s = (1 - s) x0 + s e, the velocity v of the head that learns and v_old of the head that painted x0:

    v+ = (1 - b) v_old + b v      v- = (1 + b) v_old - b v      x^+- = x_s - s v+-
    r = clip(A, -5, 5) / 10 + 1/2      w+- = mean |x^+- - x0|, detached, at least 1e-5
    loss = 5 / b * mean[ r |x^+ - x0|^2 / w+ + (1 - r) |x^- - x0|^2 / w- ] + c |v - v_ref|^2

Where v = v_old its gradient is (2r - 1) times that of flow matching on the image, but for the weight: towards images
with a positive advantage, away from the others.
"""

from __future__ import annotations

import torch

ADVANTAGE_CLIP = 5.0
SMALLEST_WEIGHT = 1e-5


def nft_loss(
    velocity: torch.Tensor,
    old_velocity: torch.Tensor,
    reference_velocity: torch.Tensor | None,
    noisy: torch.Tensor,
    clean: torch.Tensor,
    levels: torch.Tensor,
    advantages: torch.Tensor,
    *,
    beta: float,
    kl: float,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Loss `[B]` of every row, and what is logged of it, detached.

    Args:
        velocity: `[B, C, h, w]` at `noisy`, of the head that learns.
        old_velocity: of the head that painted; no gradient goes into it.
        reference_velocity: of the starting head; None without `kl`.
        noisy, clean: `[B, C, h, w]`, x_s and x0.
        levels: `[B]` noise levels s in (0, 1].
        advantages: `[B]`.
        beta: b.
        kl: c.
    """
    old, s = old_velocity.detach(), levels.view(-1, 1, 1, 1)
    share = advantages.clamp(-ADVANTAGE_CLIP, ADVANTAGE_CLIP) / (2 * ADVANTAGE_CLIP) + 0.5

    def distance(implicit: torch.Tensor) -> torch.Tensor:
        error = (noisy - s * implicit) - clean
        weight = error.detach().abs().flatten(1).mean(1).clamp(min=SMALLEST_WEIGHT)
        return error.square().flatten(1).mean(1) / weight

    better = distance((1 - beta) * old + beta * velocity)
    worse = distance((1 + beta) * old - beta * velocity)
    loss = ADVANTAGE_CLIP / beta * (share * better + (1 - share) * worse)
    metrics = {"head/moved": (velocity.detach() - old).square().flatten(1).mean(1)}
    if reference_velocity is not None:
        moved = (velocity - reference_velocity).square().flatten(1).mean(1)
        loss = loss + kl * moved
        metrics["head/kl"] = moved.detach()
    return loss, metrics
