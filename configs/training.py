"""The section `trainer`: optimisation, and how ranks share the model.

A variant of `parallel` is chosen by its `type`; its keys have our names, since accelerate's and DeepSpeed's differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from blip3o_grpo.configs.section import Section
from blip3o_grpo.configs.text_kl import TextKLSection

NO_CLIP = "bounds ratios softly, by sapo_temperature_pos and sapo_temperature_neg"
GAMMA = "weighs ratios by vespo_k_pos, vespo_lambda_pos and their likes, and clips none"
UNUSED: Mapping[str, Mapping[str, str]] = {
    "sapo": dict.fromkeys(("epsilon", "epsilon_high", "delta"), NO_CLIP),
    "vespo": dict.fromkeys(("epsilon", "epsilon_high", "delta"), GAMMA),
    "cispo": dict.fromkeys(("epsilon", "delta"), "has one bound, the largest ratio epsilon_high"),
}
"""Options of the clip that a loss has no use for, and what it has instead."""


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


class LRSchedulerSection(Section):
    """Where `lr_scheduler_type: cosine_with_min_lr` ends; one of the two."""

    min_lr: float | None = Field(default=None, ge=0)
    """The learning rate of the last step."""
    min_lr_rate: float | None = Field(default=None, ge=0, le=1)
    """The same as a share of `learning_rate`."""


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
    """Optimiser steps of the whole run, a multiple of `num_iterations`: so many of them follow a batch of rollouts."""
    num_iterations: int = Field(default=1, ge=1, le=1000)
    """Optimiser steps on every batch of rollouts, each on the whole batch. Above 1 the policy that learns moves away
    from the one that drew, and ratio and clipping begin to matter. Evaluations and checkpoints fall on ends of batches,
    so their `every_steps` are multiples of it too."""
    learning_rate: float = Field(default=1e-6, gt=0)
    """After its warm-up; AdamW."""
    lr_scheduler_type: Literal["constant", "constant_with_warmup", "linear", "cosine", "cosine_with_min_lr"] = (
        "constant"
    )
    """How the learning rate goes on after its warm-up; `linear` and `cosine` end at 0."""
    lr_scheduler_kwargs: LRSchedulerSection | None = None
    """The smallest learning rate, for `cosine_with_min_lr`."""
    warmup_steps: int = Field(default=0, ge=0)
    """Steps over which the learning rate rises from 0."""
    beta: float = Field(default=0.001, ge=0)
    """KL coefficient against the frozen starting policy; 0 drops the reference."""
    use_bias_correction_kl: bool = True
    """Multiply the KL of a token by the ratio that the loss uses, which makes its gradient that of the reverse KL
    (DeepSeek-V3.2), also where the ratio is 1."""
    sync_ref_model: bool = False
    """Move the reference policy towards the one that learns, every `ref_model_sync_steps` (TR-DPO). `kl/reference`, and
    what `warnings.kl_budget` looks at, is the distance to that moving policy then."""
    ref_model_mixup_alpha: float = Field(default=0.6, gt=0, le=1)
    """Share of the policy that learns in the new reference; the old reference has the rest."""
    ref_model_sync_steps: int = Field(default=512, ge=1)
    """Optimiser steps between two moves of the reference."""
    importance_sampling_level: Literal["token", "sequence"] = "token"
    """Ratio of the policy that learns to the one that drew: of each token, or one for an image, the geometric mean of
    its tokens' (GSPO). Clip ranges for whole images are much smaller: 0.0003 and 0.0004 in GSPO."""
    epsilon: float = Field(default=0.2, gt=0)
    """Clip range of the ratio of probabilities, below 1 and above."""
    epsilon_high: float | None = Field(default=None, gt=0)
    """Clip range above 1; None: as `epsilon`. With `loss_type: cispo` the largest ratio itself, which must be given."""
    delta: float | None = Field(default=None, gt=1)
    """Largest ratio that counts where the advantage is negative and nothing else bounds it (two-sided clip); above
    1 + `epsilon_high`. None: no bound."""
    loss_type: Literal["grpo", "dr_grpo", "dapo", "bnpo", "cispo", "sapo", "luspo", "vespo"] = "dapo"
    """TRL's losses. `grpo`, `dr_grpo`, `dapo` and `bnpo` clip the ratio and differ in how they average tokens, which is
    the same where all completions have one length, as here. `cispo` caps the ratio and keeps every token's gradient,
    `sapo` bounds the ratio softly, `luspo` is `grpo` of whole images times their length (needs
    `importance_sampling_level: sequence`), `vespo` weighs whole images by a gamma function of their ratio."""
    sapo_temperature_pos: float = Field(default=1.0, gt=0)
    """`sapo`: how steeply tokens with a positive advantage lose their weight away from ratio 1."""
    sapo_temperature_neg: float = Field(default=1.05, gt=0)
    """`sapo`: the same of the others."""
    vespo_k_pos: float = Field(default=2.0, ge=0)
    """`vespo`: an image of ratio w and positive advantage counts exp(lambda) w^k exp(-lambda w); this is k."""
    vespo_lambda_pos: float = Field(default=3.0, gt=0)
    """`vespo`: lambda of the same."""
    vespo_k_neg: float = Field(default=3.0, ge=0)
    """`vespo`: k for negative advantages."""
    vespo_lambda_neg: float = Field(default=2.0, gt=0)
    """`vespo`: lambda for negative advantages."""
    off_policy_mask_threshold: float | None = Field(default=None, gt=0)
    """Images with a negative advantage count as 0 once the mean of log p(sampler) - log p(policy that learns) over
    their tokens exceeds this (nats; DeepSeek-V3.2). None: all count."""
    top_entropy_quantile: float = Field(default=1.0, gt=0, le=1)
    """Only this share of the tokens, those of the highest entropy in a micro-batch of all ranks, is learnt from; KL and
    denominators keep all. 1: all tokens."""
    entropy_band: tuple[float, float] | None = None
    """Mean entropy of a token (nats), [LOW, HIGH], to stay between: a step after one below it has `entropy_coef` as a
    bonus, a step after one above it as a penalty, and a step after one inside it, like the first, has neither."""
    entropy_coef: float = Field(default=0.0, ge=0)
    """Weight of an entropy bonus: the loss is less this times the mean entropy of a token (nats)."""
    use_adaptive_entropy: bool = False
    """Steer `entropy_coef` (Skywork-OR1): after each optimiser step it grows by `entropy_coef_delta` if the mean
    entropy was at or under `entropy_target`, else it falls; it is applied only after a step at or under the target."""
    entropy_coef_min: float = Field(default=0.0, ge=0)
    """Smallest coefficient when it is steered."""
    entropy_coef_max: float = Field(default=1.0, gt=0)
    """Largest one."""
    entropy_coef_delta: float = Field(default=0.005, gt=0)
    """By how much it changes at a step."""
    entropy_target: float = Field(default=0.2, gt=0)
    """Mean entropy of a token (nats) to hold; set it near what the metric `entropy` shows early in a run."""
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
    adam_beta1: float = Field(default=0.9, ge=0, lt=1)
    """AdamW's first momentum."""
    adam_beta2: float = Field(default=0.999, ge=0, lt=1)
    """AdamW's second."""
    adam_epsilon: float = Field(default=1e-8, gt=0)
    """Added to the root of AdamW's second moment: gradients well below it move weights less."""
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
    text_kl: TextKLSection | None = None
    """None: nothing holds the text side; `eval --suite text` measures how far it has moved."""
    mismatch_bound: float = Field(default=0.01, gt=0)
    """The run stops when mean |sampling log-prob - training log-prob| of a step exceeds this (nats)."""

    @model_validator(mode="after")
    def _batches_are_whole(self) -> TrainerSection:
        whole_batches("trainer.max_steps", self.max_steps, self.num_iterations)
        return self

    @model_validator(mode="after")
    def _learning_rate_has_an_end(self) -> TrainerSection:
        end, wanted = self.lr_scheduler_kwargs, self.lr_scheduler_type == "cosine_with_min_lr"
        if end and not wanted:
            raise ValueError(
                f"trainer.lr_scheduler_kwargs: lr_scheduler_type {self.lr_scheduler_type} has no "
                "smallest learning rate; write lr_scheduler_type: cosine_with_min_lr, or leave it out"
            )
        if wanted and (not end or (end.min_lr is None) == (end.min_lr_rate is None)):
            raise ValueError(
                "trainer.lr_scheduler_kwargs: lr_scheduler_type cosine_with_min_lr needs one of min_lr and "
                "min_lr_rate, such as {min_lr_rate: 0.1}"
            )
        if end and (end.min_lr or 0) > self.learning_rate:
            raise ValueError(
                f"trainer.lr_scheduler_kwargs.min_lr is {end.min_lr:g}, more than "
                f"learning_rate={self.learning_rate:g}; give {self.learning_rate:g} or less"
            )
        return self

    @model_validator(mode="after")
    def _loss_fits_its_options(self) -> TrainerSection:
        loss, level = self.loss_type, self.importance_sampling_level
        given = [key for key in ("epsilon", "epsilon_high", "delta") if getattr(self, key) != _default(key)]
        unused = [key for key in given if key in UNUSED.get(loss, {})]
        if unused:
            raise ValueError(f"trainer.{unused[0]}: loss_type {loss} {UNUSED[loss][unused[0]]}; leave it out")
        if loss == "cispo" and (self.epsilon_high or 0) < 1:
            value = "not given" if self.epsilon_high is None else f"{self.epsilon_high:g}"
            raise ValueError(
                f"trainer.epsilon_high is {value}: with loss_type cispo it is the largest ratio itself, not what may "
                "come on top of 1, so it is 1 or more; give 5, for example"
            )
        high = 1 + (self.epsilon if self.epsilon_high is None else self.epsilon_high)
        if self.delta is not None and self.delta <= high:
            raise ValueError(
                f"trainer.delta is {self.delta:g}, where positive advantages are clipped already (1 + epsilon_high is "
                f"{high:g}); give more than {high:g}"
            )
        if loss == "luspo" and level == "token":
            raise ValueError(
                "trainer.importance_sampling_level is token: loss_type luspo weighs whole images; give sequence"
            )
        if loss == "vespo" and level == "sequence":
            raise ValueError(
                "trainer.importance_sampling_level is sequence: loss_type vespo makes one ratio of an image's tokens "
                "by itself; give token"
            )
        mode = self.vllm_importance_sampling_mode
        if loss == "vespo" and mode.startswith("sequence"):
            raise ValueError(
                f"trainer.vllm_importance_sampling_mode is {mode}: loss_type vespo makes one ratio of an image's "
                f"tokens by itself; give {mode.replace('sequence', 'token')}"
            )
        return self

    @model_validator(mode="after")
    def _entropy_can_be_steered(self) -> TrainerSection:
        low, high = self.entropy_coef_min, self.entropy_coef_max
        if self.use_adaptive_entropy and low > high:
            raise ValueError(f"trainer.entropy_coef_min is {low:g}, more than entropy_coef_max={high:g}")
        if self.use_adaptive_entropy and not low <= self.entropy_coef <= high:
            nearest = min(max(self.entropy_coef, low), high)
            raise ValueError(
                f"trainer.entropy_coef is {self.entropy_coef:g}, where use_adaptive_entropy starts from; it lies "
                f"between entropy_coef_min={low:g} and entropy_coef_max={high:g}; give {nearest:g}"
            )
        return self

    @model_validator(mode="after")
    def _reference_can_move(self) -> TrainerSection:
        if not self.sync_ref_model:
            return self
        if not self.beta:
            raise ValueError("trainer.sync_ref_model: with beta=0 there is no reference; give beta, such as 0.001")
        if self.lora:
            raise ValueError(
                "trainer.sync_ref_model: with lora the reference is the model without its adapters, which stays as it "
                "is; leave one of them out"
            )
        if isinstance(self.parallel, DeepSpeedSection):
            raise ValueError(
                "trainer.sync_ref_model: not with trainer.parallel.type=deepspeed, which hides its weights; give "
                "fsdp2 or ddp"
            )
        return self

    @model_validator(mode="after")
    def _ratios_have_room(self) -> TrainerSection:
        low, high = self.vllm_importance_sampling_clip_min, self.vllm_importance_sampling_clip_max
        if low == high:  # both are 1
            raise ValueError(
                "trainer.vllm_importance_sampling_clip_min is 1, and so is vllm_importance_sampling_clip_max; give a "
                "smaller clip_min or a larger clip_max"
            )
        return self


def whole_batches(key: str, steps: int, num_iterations: int, *, given: bool = True) -> None:
    """Refuse what would fall between two updates of the same rollouts.

    Args:
        given: False: the value is the default of the key.

    Raises:
        ValueError: naming the nearest numbers of steps that end with a batch.
    """
    if steps % num_iterations:
        below, above = steps // num_iterations * num_iterations, -(-steps // num_iterations) * num_iterations
        is_default = "" if given else ", its default,"
        raise ValueError(
            f"{key}={steps}{is_default} is no multiple of trainer.num_iterations={num_iterations}, optimiser steps on "
            f"one batch of rollouts; give {f'{below} or ' if below else ''}{above}"
        )


def _default(key: str) -> Any:
    return TrainerSection.model_fields[key].default


OF_TOKENS = (
    "learning_rate",
    "beta",
    "use_bias_correction_kl",
    "importance_sampling_level",
    "epsilon",
    "epsilon_high",
    "delta",
    "loss_type",
    "off_policy_mask_threshold",
    "top_entropy_quantile",
    "entropy_band",
    "entropy_coef",
    "use_adaptive_entropy",
    "multi_objective_aggregation",
    "vllm_importance_sampling_mode",
    "vllm_importance_sampling_clip_max",
    "vllm_importance_sampling_clip_min",
    "max_grad_norm",
    "micro_batch_size",
    "gradient_checkpointing",
    "lora",
)
"""Options of `trainer` that only the tokens' update asks for."""
