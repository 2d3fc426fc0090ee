"""What a warm start minimises at a step: cross-entropy on tokens, the anchor loss, and flow matching of the head.

Every batch follows from (seed, step), so a resumed run repeats what the uninterrupted one would have done.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from blip3o_grpo.configs.warmstart import WarmstartConfig
from blip3o_grpo.policies.blip3o_next.policy import BLIP3oNext
from blip3o_grpo.policies.blip3o_next.positions import position_ids
from blip3o_grpo.warmstart.anchor import anchor_loss
from blip3o_grpo.warmstart.encoded import EncodedPictures


@dataclass(frozen=True)
class Batch:
    """One supervised batch."""

    ids: torch.Tensor  # [B, L + T] prompt (left-padded) and image tokens
    mask: torch.Tensor  # [B, L + T]
    latents: torch.Tensor  # [B, C, h, w], scaled
    honest: torch.Tensor  # [B] bool: the caption belongs to the image, so its tokens are labels
    conditioned: torch.Tensor  # [B] bool: False = the condition is zeroed
    noise: torch.Tensor  # [B, C, h, w]
    timesteps: torch.Tensor  # [B] indices into the scheduler's training timesteps
    condition_noise: torch.Tensor | float = 0.0  # [B, T + 1, D], in units of the hidden states' standard deviation


def draw_batch(
    policy: BLIP3oNext,
    prompt_ids: Sequence[Sequence[int]],
    pictures: EncodedPictures,
    config: WarmstartConfig,
    step: int,
) -> Batch:
    """The batch of a step, all its randomness from (seed, step).

    Args:
        prompt_ids: of every caption, ending in `<im_start><S0>`.
        pictures: in the order of the captions.
        step: steps done before.
    """
    generator = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
    size = config.batch_size
    rows = torch.randint(len(prompt_ids), (size,), generator=generator)
    swapped = torch.rand(size, generator=generator) < config.caption_swap
    others = torch.randint(len(prompt_ids), (size,), generator=generator)
    prompts = [prompt_ids[i] for i in torch.where(swapped, others, rows).tolist()]
    padded, prompt_mask = policy.prompts.pad(prompts)
    tokens = pictures.tokens[rows].long() + policy.image_tokens.start
    latents = pictures.latents[rows].float()
    hidden_shape = (size, policy.image_tokens.num_tokens + 1, policy.config.hidden_size)
    return Batch(
        ids=torch.cat([padded, tokens], 1),
        mask=torch.cat([prompt_mask, torch.ones_like(tokens)], 1),
        latents=latents,
        honest=~swapped,
        conditioned=torch.rand(size, generator=generator) >= config.condition_dropout,
        noise=torch.randn(latents.shape, generator=generator),
        timesteps=torch.randint(len(policy.scheduler.timesteps), (size,), generator=generator),
        condition_noise=config.condition_noise * torch.randn(hidden_shape, generator=generator),
    )


def warmstart_loss(
    policy: BLIP3oNext,
    batch: Batch,
    *,
    train_ar: bool = True,
    train_head: bool = True,
    labels: str = "image",
    probe: nn.Linear | None = None,
    anchor_weight: float = 0.0,
) -> tuple[torch.Tensor, dict[str, float]]:
    """Cross-entropy of the tokens (nats) plus mean squared error of the flow `noise - latent`.

    x_t = (1 - sigma) * latent + sigma * noise, sigma uniform over the training timesteps; the condition is the
    connector on the hidden states of `<S0>` and the image tokens, or on zeros where dropped.

    Args:
        train_ar, train_head: whose losses are wanted.
        labels: of `WarmstartConfig`.
        probe, anchor_weight: of the anchor loss (`blip3o_grpo.warmstart.anchor`).
    """
    space = policy.image_tokens
    with torch.set_grad_enabled(train_ar):
        read = policy.ar.model(
            input_ids=batch.ids, attention_mask=batch.mask, position_ids=position_ids(batch.mask), use_cache=False
        ).last_hidden_state  # [B, L + T, D]
    hidden = read[:, -space.num_tokens - 1 :]  # [B, T + 1, D]
    metrics = {}
    loss = hidden.new_zeros(())
    if train_ar:
        if labels == "all":
            cross_entropy = cross_entropy_of_all(policy, read, batch)
        else:
            rows = policy.ar.lm_head.weight[space.start : space.stop]
            logits = F.linear(hidden[batch.honest, :-1], rows).float()  # [B', T, K]
            targets = batch.ids[batch.honest, -space.num_tokens :] - space.start
            cross_entropy = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
        loss = loss + cross_entropy
        metrics["cross_entropy"] = cross_entropy.item()
        if probe is not None:
            embeddings = policy.ar.model.embed_tokens(batch.ids[:, -space.num_tokens :])
            anchor, told = anchor_loss(probe, hidden[:, 1:], embeddings)
            loss = loss + anchor_weight * anchor
            metrics |= told
    if not train_head:
        return loss, metrics
    sigmas = policy.scheduler.sigmas[batch.timesteps].view(-1, 1, 1, 1)
    noisy = (1 - sigmas) * batch.latents + sigmas * batch.noise
    hidden = hidden + batch.condition_noise * hidden.detach().std()
    condition = policy.connector(hidden * batch.conditioned.view(-1, 1, 1))
    velocity = policy.sana(
        hidden_states=noisy,
        timestep=policy.scheduler.timesteps[batch.timesteps],
        encoder_hidden_states=condition,
    ).sample
    flow = F.mse_loss(velocity, batch.noise - batch.latents)
    metrics["flow_matching"] = flow.item()
    return loss + flow, metrics


def cross_entropy_of_all(policy: BLIP3oNext, read: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Mean over every token that follows another one, prompt and image, among the whole vocabulary (nats).

    Args:
        read: `[B, L + T, D]` hidden states.
    """
    told = (batch.mask[:, :-1] * batch.mask[:, 1:]).bool() & batch.honest[:, None]  # [B, L + T - 1]
    logits = policy.ar.lm_head(read[:, :-1][told]).float()  # [N, V]
    return F.cross_entropy(logits, batch.ids[:, 1:][told])


def learns(config: WarmstartConfig, step: int) -> tuple[bool, bool]:
    """Whether the AR part and the head learn at a step."""
    ar, head = "ar" in config.trains, config.trains != ("ar",)
    if config.strategy == "joint":
        return ar, head
    return ar and step < config.ar_steps, head and step >= config.ar_steps


def learning_rate(config: WarmstartConfig, step: int) -> float:
    """Linear warm-up, then cosine to 2 % of the peak; in `sequential` once for the AR part and once for the head."""
    first, last = 0, config.max_steps
    if config.strategy == "sequential":
        first, last = (0, config.ar_steps) if step < config.ar_steps else (config.ar_steps, config.max_steps)
    warm = min(1.0, (step - first + 1) / max(1, config.warmup_steps))
    progress = max(0, step - first - config.warmup_steps) / max(1, last - first - config.warmup_steps)
    return config.learning_rate * warm * (0.02 + 0.49 * (1 + math.cos(math.pi * progress)))
