"""A diffusion head that starts by looking at the right token and reading what it says."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from blip3o_grpo.policies.blip3o_next.policy import BLIP3oNext

PLACE_LOGIT = 12.0


@torch.no_grad()
def align_head(policy: BLIP3oNext, ids: torch.Tensor, mask: torch.Tensor, latents: torch.Tensor) -> dict[str, float]:
    """Half of the cross-attention heads start by looking at the token of their own place; the first reads its latent.

    Least squares finds rows, columns and latents in the AR part's hidden states (`anchor_weight` put them there); the
    connector and SANA's caption projection start by passing them on. Queries know their place from SANA's position
    embedding, which the noisy latents are kept out of, and what is read enters the residual stream beside both. Found
    by training alone this takes longer than all the rest.

    Args:
        ids: `[B, L + T]` prompts and image tokens to fit on, with their `mask`.
        latents: `[B, C, h, w]` what the tokens stand for; C must not exceed the size of an attention head.

    Returns:
        Explained share of variance of the fits: `hidden`, `keys`, `queries`, `values`.
    """
    sana, side = policy.sana, policy.sana.config.sample_size
    place = torch.arange(side * side)
    places = torch.cat([F.one_hot(place // side, side), F.one_hot(place % side, side)], -1).float() - 1 / side
    wanted = latents.flatten(2).transpose(1, 2)  # [B, T, C]
    hidden = policy.hidden_states(ids, mask)
    said = torch.cat([places.expand(len(wanted), -1, -1), wanted], -1)
    weight, bias, hidden_fit = _ridge(hidden[:, 1:].flatten(0, 1), said.flatten(0, 1))
    _pass_on(policy.connector[0], policy.connector[2], weight, bias)
    identity = torch.eye(len(weight), policy.connector[2].out_features)
    _pass_on(sana.caption_projection.linear_1, sana.caption_projection.linear_2, identity, torch.zeros(len(weight)))

    captions = sana.caption_norm(sana.caption_projection(policy.connector(hidden)))[:, 1:].flatten(0, 1)
    keys, key_bias, key_fit = _ridge(captions, places.repeat(len(wanted), 1))
    values, value_bias, value_fit = _ridge(captions, wanted.flatten(0, 1))
    channels = sana.config.in_channels
    embedding = sana.patch_embed.proj.weight
    positions = sana.patch_embed(torch.zeros(1, channels, side, side))[0].T  # [D, T]
    left, scales, _ = torch.linalg.svd(positions)
    free = left[:, (scales > 1e-3 * scales[0]).sum() :]
    length = embedding.flatten(1).norm(dim=0).mean()
    embedding.copy_((free[:, :channels] * length).view_as(embedding))
    noise = torch.randn(64, channels, side, side, generator=torch.Generator().manual_seed(4))
    queries, query_bias, query_fit = _ridge(sana.patch_embed(noise).flatten(0, 1), places.repeat(len(noise), 1))

    width, head_dim = 2 * side, sana.config.cross_attention_head_dim
    scale = (PLACE_LOGIT * head_dim**0.5) ** 0.5
    for block in sana.transformer_blocks:
        for head in range(sana.config.num_cross_attention_heads // 2):
            rows = slice(head * head_dim, head * head_dim + width)
            for projection, place_weight, place_bias in (
                (block.attn2.to_k, keys, key_bias),
                (block.attn2.to_q, queries, query_bias),
            ):
                projection.weight[rows] = scale * place_weight
                projection.bias[rows] = scale * place_bias
                projection.weight[rows.stop : (head + 1) * head_dim] = 0
                projection.bias[rows.stop : (head + 1) * head_dim] = 0
    reader = sana.transformer_blocks[0].attn2
    reader.to_v.weight[: len(values)] = values
    reader.to_v.bias[: len(values)] = value_bias
    reader.to_out[0].weight[:, : len(values)] = free[:, channels : channels + len(values)] * length
    return {"hidden": hidden_fit, "keys": key_fit, "queries": query_fit, "values": value_fit}


def _pass_on(first: nn.Linear, second: nn.Linear, weight: torch.Tensor, bias: torch.Tensor) -> None:
    """Make `second(gelu(first(x)))` begin with the linear map `[K, D]`; its other outputs are 1.

    Two units carry each of the K channels, as gelu(u) - gelu(-u) = u. The ones steady the norm that follows.
    """
    count = len(weight)
    first.weight[: 2 * count] = torch.cat([weight, -weight])
    first.bias[: 2 * count] = torch.cat([bias, -bias])
    second.weight[:, : 2 * count] = 0
    second.weight[:count] = 0
    second.weight[:count, :count] = torch.eye(count)
    second.weight[:count, count : 2 * count] = -torch.eye(count)
    second.bias[:count] = 0
    second.bias[count:] = 1


def _ridge(inputs: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Weight and bias of the least-squares map `[N, D]` to `[N, K]`, and the share of variance it explains."""
    mean = inputs.mean(0)
    centred = (inputs - mean).double()
    wanted = (targets - targets.mean(0)).double()
    gram = centred.T @ centred + 1e-5 * len(inputs) * torch.eye(inputs.shape[1], dtype=torch.double)
    weight = torch.linalg.solve(gram, centred.T @ wanted).T
    explained = 1 - (wanted - centred @ weight.T).pow(2).sum() / wanted.pow(2).sum()
    weight = weight.float()
    return weight, targets.mean(0) - weight @ mean, explained.item()
