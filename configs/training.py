"""The section `trainer`: optimisation, and how ranks share the model.

A variant of `parallel` is chosen by its `type`; its keys have our names, since accelerate's and DeepSpeed's differ.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from blip3o_grpo.configs.section import Section


class LoRASection(Section):
    """Train low-rank adapters (PEFT) instead of the weights; the reference policy is the same model without them."""

    rank: int = Field(default=16, ge=1, le=65_536)
    """Inner width of an adapter."""
    alpha: float = Field(default=32.0, gt=0)
    """The adapter counts alpha / rank."""
    targets: tuple[Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"], ...] = Field(
        default=("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"), min_length=1
    )
    """Linear layers of the AR part that get one."""


class EMASection(Section):
    """Exponential moving average of the weights that learn; its decay warms up as (1 + n) / (10 + n) over steps n."""

    decay: float = Field(default=0.99, gt=0, lt=1)
    """Share of the old average that a step keeps, once warmed up."""
    use: Literal["averaged", "last"] = "averaged"
    """Weights that held-out evaluations measure and `RUN/policy` holds. Rollouts always come from the last ones."""


class DDPSection(Section):
    """Every rank holds everything."""

    type: Literal["ddp"] = "ddp"
    """Chooses this section."""


class FSDP2Section(Section):
    """PyTorch's fully sharded data parallel (`fully_shard`), through accelerate; ranks need GPUs."""

    type: Literal["fsdp2"]
    """Chooses this section."""
    reshard_after_forward: bool = True
    """Give a layer's weights back between forward and backward: less memory, one more gather."""
    cpu_offload: bool = False
    """Keep weights, gradients and optimiser on the CPU between uses."""


class DeepSpeedSection(Section):
    """DeepSpeed ZeRO, through accelerate; ranks need GPUs and the package `deepspeed`."""

    type: Literal["deepspeed"]
    """Chooses this section."""
    zero_stage: Literal[1, 2, 3] = 2
    """What is sharded: 1 the optimiser, 2 also gradients, 3 also weights."""
    offload_optimizer: bool = False
    """Keep the optimiser's state on the CPU."""
    offload_weights: bool = False
    """Stage 3 only."""

    @model_validator(mode="after")
    def _weights_are_sharded(self) -> DeepSpeedSection:
        if self.offload_weights and self.zero_stage != 3:
            raise ValueError(f"trainer.parallel.offload_weights: only with zero_stage 3 (it is {self.zero_stage})")
        return self


class TrainerSection(Section):
    """Optimisation, in TRL's and transformers' own names (see `trl.GRPOConfig`)."""

    max_steps: int = Field(default=100, ge=1, le=10**9)
    """Optimiser steps of the whole run."""
    learning_rate: float = Field(default=1e-6, gt=0)
    """After its warm-up; AdamW."""
    lr_scheduler_type: Literal["constant", "constant_with_warmup", "linear", "cosine"] = "constant"
    """How the learning rate goes on after its warm-up."""
    warmup_steps: int = Field(default=0, ge=0)
    """Steps over which the learning rate rises from 0."""
    beta: float = Field(default=0.001, ge=0)
    """KL coefficient against the frozen starting policy; 0 drops the reference."""
    epsilon: float = Field(default=0.2, gt=0)
    """Clip range of the ratio of probabilities, below 1 and above."""
    epsilon_high: float | None = Field(default=None, gt=0)
    """Clip range above 1; None: as `epsilon`."""
    loss_type: Literal["grpo", "dr_grpo", "dapo", "bnpo"] = "dapo"
    """How the loss of tokens is averaged (TRL's)."""
    scale_rewards: Literal["group", "batch", "none"] = "group"
    """Divide advantages by the standard deviation of the group, of the batch, or not."""
    multi_objective_aggregation: Literal["sum_then_normalize", "normalize_then_sum"] = "sum_then_normalize"
    """`normalize_then_sum` (GDPO) normalises each reward within its group, then their weighted sum over the batch;
    `scale_rewards` is not asked then."""
    min_group_std: float = Field(default=0.05, ge=0)
    """Advantages are (reward - the group's mean) / max(standard deviation, this), so that images which score nearly the
    same teach nearly nothing. In the units of the weighted sum of the rewards (those of this project lie in [0, 1]), or
    of each reward with `normalize_then_sum`; with `scale_rewards: batch` the deviation is the batch's. 0: as in TRL."""
    vllm_importance_sampling_mode: Literal["token_truncate", "token_mask", "sequence_truncate", "sequence_mask"] = (
        "token_truncate"
    )
    """How the loss corrects for samplers whose probabilities differ a little from the trainer's: by the ratio trainer /
    sampler of each token, or of each whole image, cut at `clip_max` (truncate) or counted as 0 beyond it (mask). Over
    hundreds of tokens ratios of whole images leave few samples: see `mismatch/effective_sample_size`."""
    vllm_importance_sampling_clip_max: float = Field(default=2.0, ge=1)
    """Largest ratio that counts in full."""
    vllm_importance_sampling_clip_min: float | None = Field(default=None, ge=0, le=1)
    """Smallest one; None: no bound."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradients of a larger norm are scaled down to it."""
    weight_decay: float = Field(default=0.0, ge=0)
    """AdamW's."""
    micro_batch_size: int | None = Field(default=None, ge=1)
    """Rollouts per forward/backward on one rank; None: the rank's whole share at once."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass: less memory, more time."""
    parallel: DDPSection | FSDP2Section | DeepSpeedSection = Field(default=DDPSection(), discriminator="type")
    """How ranks share the model."""
    lora: LoRASection | None = None
    """None: all weights of the AR part learn."""
    ema: EMASection | None = None
    """None: no average is kept."""
    mismatch_bound: float = Field(default=0.01, gt=0)
    """The run stops when mean |sampling log-prob - training log-prob| of a step exceeds this (nats)."""

    @model_validator(mode="after")
    def _ratios_have_room(self) -> TrainerSection:
        low, high = self.vllm_importance_sampling_clip_min, self.vllm_importance_sampling_clip_max
        if low == high:  # both are 1
            raise ValueError(
                "trainer.vllm_importance_sampling_clip_min is 1, and so is vllm_importance_sampling_clip_max; give a "
                "smaller clip_min or a larger clip_max"
            )
        return self
