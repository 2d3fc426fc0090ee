"""What a supervised step of BLIP3-o minimises: flow matching of image features, or their plain squared error.

    flow   x_s = (1 - s) f + s e, s drawn from the scheduler's training levels; mean |v(x_s, s) - (e - f)|^2
    mse    the same transformer as a regression: at x = 0 and s = 1 the features are -v; mean |-v - f|^2

A model trained by `mse` paints in one unguided Euler step from features of zeros. The condition is zeroed for some rows
of `flow`, for guidance. Pure functions of a policy and a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F

from blip3o_grpo.policies.blip3o.policy import BLIP3o

Loss = Literal["flow", "mse"]


@dataclass(frozen=True)
class FeatureBatch:
    """One supervised batch."""

    ids: torch.Tensor  # [B, L] prompts, left-padded, ending in [IMG]
    mask: torch.Tensor  # [B, L], 1 = real token
    features: torch.Tensor  # [B, C, h, w]
    noise: torch.Tensor  # [B, C, h, w]
    levels: torch.Tensor  # [B] indices into the scheduler's training levels
    conditioned: torch.Tensor  # [B] bool: False = the condition is zeroed


def draw_feature_batch(
    policy: BLIP3o,
    prompt_ids: Sequence[Sequence[int]],
    features: torch.Tensor,
    rows: torch.Tensor,
    *,
    dropout: float,
    generator: torch.Generator,
) -> FeatureBatch:
    """The batch of some pictures.

    Args:
        prompt_ids: of every picture's caption.
        features: `[N, C, h, w]`, of the pictures in the same order.
        rows: `[B]`, which pictures.
        dropout: share of rows whose condition is zeroed.
        generator: of noise, levels and dropout.
    """
    size = len(rows)
    ids, mask = policy.prompts.pad([prompt_ids[row] for row in rows.tolist()])
    wanted = features[rows].float()
    return FeatureBatch(
        ids=ids,
        mask=mask,
        features=wanted,
        noise=torch.randn(wanted.shape, generator=generator),
        levels=torch.randint(len(policy.scheduler.timesteps), (size,), generator=generator),
        conditioned=torch.rand(size, generator=generator) >= dropout,
    )


def feature_loss(policy: BLIP3o, batch: FeatureBatch, kind: Loss) -> torch.Tensor:
    """Mean squared error (module docstring), a scalar; gradients reach whatever of the policy has them on."""
    condition = policy.read(batch.ids, batch.mask)  # [B, num_queries, H]
    if kind == "mse":
        return F.mse_loss(regress(policy, condition), batch.features)
    levels = policy.scheduler.sigmas[batch.levels].view(-1, 1, 1, 1)
    noisy = (1 - levels) * batch.features + levels * batch.noise
    seen = policy.connector(condition * batch.conditioned.view(-1, 1, 1))
    velocity = policy.dit(noisy, policy.scheduler.timesteps[batch.levels], seen).sample
    return F.mse_loss(velocity, batch.noise - batch.features)


def regress(policy: BLIP3o, condition: torch.Tensor) -> torch.Tensor:
    """Features `[B, C, h, w]` that a model trained by `mse` says of conditions `[B, num_queries, H]`."""
    config = policy.dit.config
    nothing = condition.new_zeros(len(condition), config.in_channels, config.sample_size, config.sample_size)
    first = policy.scheduler.timesteps[:1].to(condition.device).expand(len(condition))  # noise alone
    return -policy.dit(nothing, first, policy.connector(condition)).sample
