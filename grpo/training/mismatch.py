"""How far sampler and trainer disagree about the very tokens just drawn, and where a run stops because of it.

`mismatch/mean_abs` is mean |log p_sampler - log p_trainer| per token (nats), `mismatch/max_abs` the largest;
`kl/mismatch` estimates KL(sampler || trainer) per token without bias as E[r - 1 - log r], r = p_trainer / p_sampler
(Schulman's k3).

The loss counts tokens, or whole images, with cut ratios r (`trainer.vllm_importance_sampling_mode`). Of these weights
w, `mismatch/weight_min`, `_mean` and `_max` are logged, and `mismatch/effective_sample_size`, (sum w)^2 / (n sum w^2):
the share of the samples that is left, 1 where all count alike (Kish 1965).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch


class MismatchError(ValueError):
    """Sampler and trainer disagree about log-probabilities by more than the configured bound."""


def importance_weights(
    rollout_logprobs: torch.Tensor,
    old_logprobs: torch.Tensor,
    mask: torch.Tensor,
    *,
    mode: str,
    low: float | None,
    high: float,
) -> torch.Tensor:
    """By what the loss weighs each token `[B, T]` or image `[B, 1]`: the ratio trainer / sampler, bounded; as TRL's.

    TRL computes it before the update, which takes a forward pass of its own; here it comes from that of the update.

    Args:
        rollout_logprobs: `[B, T]`, of the sampler; NaN where it has none, which weighs 1.
        old_logprobs: `[B, T]`, of the trainer before the update.
        mask: `[B, T]`, 1 where a token counts.
        mode: `trainer.vllm_importance_sampling_mode`.
        low: smallest ratio that counts in full; None: no bound.
        high: the largest.
    """
    difference = ((old_logprobs - rollout_logprobs) * mask).nan_to_num(nan=0.0)
    ratio = (difference.sum(1, keepdim=True) if mode.startswith("sequence") else difference).exp()
    if mode.endswith("truncate"):
        return ratio.clamp(min=low, max=high)
    return ratio.masked_fill((ratio > high) | (ratio < (low or 0.0)), 0.0)


def replay_weights(
    rollout_logprobs: torch.Tensor, old_logprobs: torch.Tensor, mask: torch.Tensor, *, low: float | None, high: float
) -> torch.Tensor:
    """By what the loss weighs an image of an earlier step, `[B, 1]`: the geometric mean of its tokens' ratios (GSPO,
    arXiv 2507.18071), between the bounds. The ratio of the whole image, a product over hundreds of tokens, would leave
    nothing of most.

    Args:
        rollout_logprobs, old_logprobs, mask, low, high: as in `importance_weights`.
    """
    difference = ((old_logprobs - rollout_logprobs) * mask).nan_to_num(nan=0.0)
    mean = difference.sum(1, keepdim=True) / mask.sum(1, keepdim=True).clamp(min=1)
    return mean.exp().clamp(min=low, max=high)


def replay_metrics(weights: torch.Tensor) -> dict[str, float]:
    """Mean weight of what is replayed; nothing where nothing is.

    Args:
        weights: of all ranks' images, NaN for the others.
    """
    weights = weights[~weights.isnan()].double()
    return {"replay/weight_mean": weights.mean().item()} if len(weights) else {}


def mismatch_sums(rollout_logprobs: torch.Tensor, old_logprobs: torch.Tensor, mask: torch.Tensor) -> list[float]:
    """Sums over a rank's tokens that count: |difference|, the KL estimate, and how many they are.

    Args:
        rollout_logprobs: `[B, T]`, of the sampler.
        old_logprobs: `[B, T]`, of the trainer before the update.
        mask: `[B, T]`, 1 where a token counts.
    """
    delta = (old_logprobs - rollout_logprobs).double() * mask
    return [delta.abs().sum().item(), (delta.expm1() - delta).sum().item(), mask.sum().item()]


def largest_difference(rollout_logprobs: torch.Tensor, old_logprobs: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Largest |difference| of a rank's tokens that count, `[1]`; 0 where none does."""
    return ((old_logprobs - rollout_logprobs).abs() * mask).max().reshape(1)


def mismatch(sums: Sequence[float]) -> dict[str, float]:
    """The metrics, from sums over all ranks."""
    difference, kl, count = sums
    return {"mismatch/mean_abs": difference / count, "kl/mismatch": kl / count}


def counted_weights(weights: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The importance weights that count, NaN in place of the others.

    Args:
        weights: `[B, T]` of tokens, or `[B, 1]` of whole images.
        mask: `[B, T]`, 1 where a token counts.
    """
    counted = mask if weights.shape == mask.shape else mask.amax(1, keepdim=True)
    return weights.masked_fill(~counted.bool(), torch.nan)


def weight_metrics(weights: torch.Tensor) -> dict[str, float]:
    """The metrics of all ranks' weights, as `counted_weights` gives them."""
    weights = weights[~weights.isnan()].double()
    return {
        "mismatch/weight_min": weights.min().item(),
        "mismatch/weight_mean": weights.mean().item(),
        "mismatch/weight_max": weights.max().item(),
        "mismatch/effective_sample_size": (weights.sum() ** 2 / (weights.square().sum() * len(weights))).item(),
    }


def check_mismatch(measured: Mapping[str, float], bound: float, step: int) -> None:
    """Stop beyond the bound.

    Raises:
        MismatchError: naming step, difference and bound.
    """
    mean_abs = measured["mismatch/mean_abs"]
    if not mean_abs <= bound:
        raise MismatchError(
            f"step {step}: sampler and trainer log-probabilities differ by {mean_abs:.2g} nats per token on average, "
            f"more than trainer.mismatch_bound={bound}; training would learn the difference"
        )
