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
    alpha: float = Field(default=32.0, gt=0)
    """The adapter counts alpha / rank."""
    targets: tuple[Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"], ...] = Field(
        default=("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"), min_length=1
    )


class EMASection(Section):
    """Exponential moving average of the weights that learn; its decay warms up as (1 + n) / (10 + n) over steps n."""

    decay: float = Field(default=0.99, gt=0, lt=1)
    use: Literal["averaged", "last"] = "averaged"
    """Weights that held-out evaluations measure and `RUN/policy` holds. Rollouts always come from the last ones."""


class DDPSection(Section):
    """Every rank holds everything."""

    type: Literal["ddp"] = "ddp"


class FSDP2Section(Section):
    """PyTorch's fully sharded data parallel (`fully_shard`), through accelerate; ranks need GPUs."""

    type: Literal["fsdp2"]
    reshard_after_forward: bool = True
    """Give a layer's weights back between forward and backward: less memory, one more gather."""
    cpu_offload: bool = False
    """Keep weights, gradients and optimiser on the CPU between uses."""


class DeepSpeedSection(Section):
    """DeepSpeed ZeRO, through accelerate; ranks need GPUs and the package `deepspeed`."""

    type: Literal["deepspeed"]
    zero_stage: Literal[1, 2, 3] = 2
    """What is sharded: 1 the optimiser, 2 also gradients, 3 also weights."""
    offload_optimizer: bool = False
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
    learning_rate: float = Field(default=1e-6, gt=0)
    lr_scheduler_type: Literal["constant", "constant_with_warmup", "linear", "cosine"] = "constant"
    warmup_steps: int = Field(default=0, ge=0)
    beta: float = Field(default=0.001, ge=0)
    """KL coefficient against the frozen starting policy; 0 drops the reference."""
    epsilon: float = Field(default=0.2, gt=0)
    epsilon_high: float | None = Field(default=None, gt=0)
    loss_type: Literal["grpo", "dr_grpo", "dapo", "bnpo"] = "dapo"
    scale_rewards: Literal["group", "batch", "none"] = "group"
    multi_objective_aggregation: Literal["sum_then_normalize", "normalize_then_sum"] = "sum_then_normalize"
    max_grad_norm: float = Field(default=1.0, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    micro_batch_size: int | None = Field(default=None, ge=1)
    """Rollouts per forward/backward on one rank; None: the rank's whole share at once."""
    gradient_checkpointing: bool = False
    parallel: DDPSection | FSDP2Section | DeepSpeedSection = Field(default=DDPSection(), discriminator="type")
    """How ranks share the model."""
    lora: LoRASection | None = None
    """None: all weights of the AR part learn."""
    ema: EMASection | None = None
    """None: no average is kept."""
    mismatch_bound: float = Field(default=0.01, gt=0)
    """The run stops when mean |sampling log-prob - training log-prob| of a step exceeds this (nats)."""
