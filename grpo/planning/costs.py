"""Seconds of every stage, computed from shapes and a card's ceilings, where nothing was measured.

A roofline: drawing tokens is bound by memory (each token reads all weights once for the whole batch, and the keys and
values of every sequence), all else by arithmetic. Operations are counted by PyTorch on the meta device, where nothing
is allocated. What this leaves out: start-up, transfers, everything on CPUs but the reading of text.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from blip3o_grpo.configs import RunConfig
from blip3o_grpo.configs.head import FlowGRPOSection
from blip3o_grpo.configs.training import DeepSpeedSection
from blip3o_grpo.planning.cards import OCR_S_PER_MEGAPIXEL, SHARE_OF_BANDWIDTH, SHARE_OF_FLOPS, card
from blip3o_grpo.planning.footprint import BFLOAT, head_is_averaged
from blip3o_grpo.planning.times import StageTimes, device_of, learning, policy_shape
from blip3o_grpo.policies import BLIP3oNext
from blip3o_grpo.policies.blip3o_next.caption_once import captions_read_once
from blip3o_grpo.policies.blip3o_next.denoising import guided_steps, sampler

TERA = 1e12
MEGAPIXEL = 1024**2
DETECTOR_OPERATIONS = 313e9
"""Of one picture in a reward on a GPU: Mask2Former with Swin-S (arXiv 2112.01527, table of instance segmentation)."""
TYPICAL_PROMPT = 40
"""Tokens of a prompt with its chat template."""


def computed_times(config: RunConfig, policy_path: Path, name: str) -> StageTimes:
    """Seconds per image of every stage on a card of this name, in bfloat16.

    Raises:
        ConfigError: the card is not known.
    """
    ceilings = card(name)
    policy = policy_of_shapes(policy_path)
    operations = operations_per_image(config, policy)
    per_second = ceilings.flops * SHARE_OF_FLOPS
    pixels = (policy.sana.config.sample_size * policy.vae.spatial_compression_ratio) ** 2
    call, image = sampling_seconds(policy, ceilings.bytes_per_s * SHARE_OF_BANDWIDTH)
    drawn = min(config.rollout.prompts_per_chunk, config.rollout.prompts_per_step) * config.rollout.group_size
    on_gpu = config.cluster.gpus_per_reward > 0
    text, detector = OCR_S_PER_MEGAPIXEL * pixels / MEGAPIXEL, DETECTOR_OPERATIONS / per_second
    scoring = (
        "a detector at the same share" if on_gpu else f"text read at {OCR_S_PER_MEGAPIXEL} s per megapixel and core"
    )
    return StageTimes(
        policy=policy_shape(policy_path),
        device=device_of(config),
        dtype=config.policy.dtype,
        sample=call / drawn + image,
        sample_call=call,
        decode_once=operations["decode once"] / per_second,
        decode_per_step=operations["decode per step"] / per_second,
        score=detector if on_gpu else text,
        train=operations["train"] / per_second,
        learn=learning(config),
        source=f"computed for {name}: {SHARE_OF_FLOPS:.0%} of {ceilings.flops / TERA:.0f} TFLOP/s, "
        f"{SHARE_OF_BANDWIDTH:.0%} of {ceilings.bytes_per_s / TERA:.2f} TB/s, {scoring}; no GPU run was made",
        computed=("sample", "decode", "score", "train"),
    )


def policy_of_shapes(policy_path: Path) -> BLIP3oNext:
    """AR part and head of a checkpoint on the meta device."""
    return BLIP3oNext.shapes(policy_path)


def operations_per_image(config: RunConfig, policy: BLIP3oNext) -> dict[str, float]:
    """Floating-point operations of one image by stage; `decode per step` is of one Euler step with its guidance, and
    `train` of one completion with all its images."""
    guided = config.rollout.guidance_scale != 1
    forward = forward_operations(policy, policy.image_tokens.num_tokens + TYPICAL_PROMPT)
    logits = 2 * policy.image_tokens.num_tokens * policy.image_tokens.size * policy.config.hidden_size
    once, step = head_operations(policy, guided)
    alone = head_operations(policy, guided=False)
    if guided:
        rollout = config.rollout
        steps = sampler(policy, rollout.num_diffusion_steps)  # whose shift moves the noise levels
        acts = guided_steps(steps, rollout.guidance_scale, rollout.guidance_interval)
        share = sum(acts) / len(acts)
        step = share * step + (1 - share) * alone[1]
    return {
        "decode once": forward + once + vae_operations(policy),
        "decode per step": step,
        "train": training_passes(config) * (forward + logits) + head_training_operations(config, policy, forward),
    }


def head_training_operations(config: RunConfig, policy: BLIP3oNext, forward: float) -> float:
    """Of what the diffusion head learns from one completion; 0 where it does not learn.

    Hidden states are computed again, in one forward pass of the AR part. Every image counts at each of its noise levels
    or noisy steps: a forward pass and its backward pass, and one each of the starting head and of the average.
    """
    if "head" not in config.learn:
        return 0.0
    method = config.head.method
    times = method.window if isinstance(method, FlowGRPOSection) else method.times_per_image
    passes = 3 + bool(method.kl) + head_is_averaged(config)
    velocity = sum(head_operations(policy, config.head.guided and config.rollout.guidance_scale != 1))
    return forward + config.rollout.noises_per_completion * times * passes * velocity


def training_passes(config: RunConfig) -> int:
    """Forward passes that a training step of the tokens costs: the policy's, and its backward pass, which is two of
    them; 0 where tokens do not learn.

    Checkpointing computes the forward pass once more, the reference policy has one, and with DeepSpeed the log-probs
    before the update need one of their own (`ImageGRPOTrainer.one_forward`).
    """
    section = config.trainer
    if "tokens" not in config.learn:
        return 0
    twice = isinstance(section.parallel, DeepSpeedSection)
    return 3 + section.gradient_checkpointing + (section.beta > 0) + twice


def forward_operations(policy: BLIP3oNext, length: int) -> float:
    """Of the AR part's layers on one sequence, attention causal, without logits."""
    config = policy.config
    weights = sum(parameter.numel() for parameter in policy.ar.model.layers.parameters())
    attention = 2 * config.num_hidden_layers * config.num_attention_heads * config.head_dim * length**2
    return 2 * weights * length + attention


@torch.no_grad()
def head_operations(policy: BLIP3oNext, guided: bool) -> tuple[float, float]:
    """Of one image in the diffusion head: once, and in every step, as `BLIP3oNext.denoise` does it."""
    head, rows = policy.sana.config, 2 if guided else 1
    with torch.device("meta"):
        hidden = torch.zeros(1, policy.image_tokens.num_tokens + 1, policy.config.hidden_size)
        latents = torch.zeros(rows, head.in_channels, head.sample_size, head.sample_size)
        timestep = torch.zeros(())
        with FlopCounterMode(display=False) as counter:
            nothing = policy.connector(hidden[:, :1]) if guided else None
            with captions_read_once(policy.sana, policy.connector(hidden), nothing) as velocity:
                once = counter.get_total_flops()
                velocity(latents, timestep)
    return once, counter.get_total_flops() - once


@torch.no_grad()
def vae_operations(policy: BLIP3oNext) -> float:
    """Of decoding one picture's latents to pixels."""
    head = policy.sana.config
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        policy.vae.decode(torch.zeros(1, head.in_channels, head.sample_size, head.sample_size))
    return counter.get_total_flops()


def sampling_seconds(policy: BLIP3oNext, bytes_per_s: float) -> tuple[float, float]:
    """Of an engine call, which reads the weights once per token, and of each image in it, whose cache is read."""
    model, num_tokens = policy.config, policy.image_tokens.num_tokens
    layers = sum(parameter.numel() for parameter in policy.ar.model.layers.parameters())
    weights = (layers + policy.image_tokens.size * model.hidden_size) * BFLOAT
    cached = 2 * model.num_hidden_layers * model.num_key_value_heads * model.head_dim * BFLOAT
    mean_length = TYPICAL_PROMPT + num_tokens / 2
    return num_tokens * weights / bytes_per_s, num_tokens * mean_length * cached / bytes_per_s
