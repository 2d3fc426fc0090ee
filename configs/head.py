"""The section `head`: how the diffusion head learns where `learn` names it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from blip3o_grpo.configs.section import Section
from blip3o_grpo.configs.training import TrainerSection

LORA_TARGETS = r".*\.attn[12]\.(to_q|to_k|to_v|to_out\.0)"
"""Modules of SANA with an adapter: its attention to itself and to the caption."""


class HeadLoRASection(Section):
    """Train low-rank adapters (PEFT) of SANA's attention and the whole connector instead of all weights."""

    rank: int = Field(default=32, ge=1, le=65_536)
    """Inner width of an adapter."""
    alpha: float = Field(default=64.0, gt=0)
    """The adapter counts alpha / rank."""


class NFTSection(Section):
    """DiffusionNFT (arXiv 2509.16117): needs only the latents that rollouts ended with, from any sampler."""

    type: Literal["nft"] = "nft"
    """Chooses this section."""
    beta: float = Field(default=1.0, gt=0, le=10)
    """How far the implicit positive and negative velocities lie from the one that drew: v_old +- beta (v - v_old).
    Published: 1 for GenEval, 0.1 for OCR."""
    times_per_image: int = Field(default=1, ge=1, le=1000)
    """Noise levels at which every image is learnt from in an update, drawn from those the sampler visits."""
    kl: float = Field(default=1e-4, ge=0)
    """Weight of the squared distance between the velocities of the head and of the starting head; 0: no reference."""
    old_decay: float = Field(default=0.0, ge=0, lt=1)
    """Rollouts are drawn by an average of the head: old = d old + (1 - d) new after each update, d growing by
    `old_decay_growth` an update up to this. 0: by the newest head."""
    old_decay_growth: float = Field(default=0.001, gt=0)
    """See `old_decay`."""


class FlowGRPOSection(Section):
    """Flow-GRPO (arXiv 2505.05470): the first steps of the sampler add noise, and their log-probs are learnt from."""

    type: Literal["flow_grpo"]
    """Chooses this section."""
    sampler: Literal["sde", "cps"] = "sde"
    """Step with noise: the paper's stochastic differential equation, or coefficients-preserving sampling, which leaves
    no more noise in a latent than its level says."""
    noise_level: float = Field(default=0.7, gt=0, le=2)
    """Of the noise that a step adds: `a` of the paper, `eta` of coefficients-preserving sampling (at most 1 there)."""
    window: int = Field(default=1, ge=1, le=1000)
    """The first so many steps add noise; never the last one."""
    epsilon: float = Field(default=1e-4, gt=0)
    """Clip range of the ratio of step probabilities (log-probs are means over latent values)."""
    kl: float = Field(default=0.0, ge=0)
    """Weight of the squared distance between the velocities of the head and of the starting head; 0: no reference."""

    @model_validator(mode="after")
    def _keeps_the_variance(self) -> FlowGRPOSection:
        if self.sampler == "cps" and self.noise_level > 1:
            raise ValueError(
                f"head.method.noise_level={self.noise_level:g}: with sampler cps it is the share of a latent's noise "
                "that is drawn anew; give 1 or less"
            )
        return self


class HeadSection(Section):
    """RL of the connector and of SANA; DC-AE and the AR part's hidden states stay as they are."""

    method: Annotated[NFTSection | FlowGRPOSection, Field(discriminator="type")] = NFTSection()
    """What its loss is."""
    credit: Literal["factorised", "shared"] = "factorised"
    """What an image's reward says of the head. `factorised`: how it differs from those of the same tokens painted from
    other noises, so that good tokens do not praise the head; tokens are judged by the mean over their noises. `shared`:
    how it differs from all of its group, for both halves. Rewards count as their weighted sum, whatever
    `trainer.multi_objective_aggregation` is."""
    guided: bool = True
    """Learn the guided velocity, as the sampler uses it; false: the conditional one alone, whose guided picture changes
    more than it."""
    learning_rate: float = Field(default=3e-5, gt=0)
    """AdamW's; it goes on as `trainer.lr_scheduler_type` says."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradients of a larger norm are scaled down to it."""
    micro_batch_size: int = Field(default=64, ge=1)
    """Images (times noise levels) of one forward and backward pass."""
    lora: HeadLoRASection | None = None
    """None: all weights of connector and SANA learn."""


def check_learning(
    learn: tuple[str, ...],
    head: HeadSection,
    trainer: TrainerSection,
    *,
    noises: int,
    staleness: int,
    steps: int,
    guidance_scale: float,
) -> None:
    """Refuse a head that cannot learn as the other sections have it.

    Args:
        learn, head, trainer: of the run.
        noises: `rollout.noises_per_completion`.
        staleness: `rollout.max_staleness`.
        steps: `rollout.num_diffusion_steps`.
        guidance_scale: `rollout.guidance_scale`.

    Raises:
        ValueError: naming the key and what to give instead.
    """
    if len(set(learn)) < len(learn):
        raise ValueError(f"learn: {max(learn, key=learn.count)!r} is named twice")
    if "head" not in learn:
        return
    if head.credit == "factorised" and noises == 1:
        raise ValueError(
            "rollout.noises_per_completion is 1, and with head.credit=factorised the head is judged by how images of "
            "the same tokens differ; give 2 or more, or head.credit=shared"
        )
    if staleness:
        raise ValueError(
            "rollout.max_staleness=1: the head learns on the hidden states that its rollouts were painted from, which "
            "are gone when the AR part has learnt on; give 0, or learn: [tokens]"
        )
    if trainer.parallel.type != "ddp":
        raise ValueError(
            f"trainer.parallel.type={trainer.parallel.type}: every rank holds the whole head; give ddp, or "
            "learn: [tokens]"
        )
    method = head.method
    if isinstance(method, FlowGRPOSection) and method.window >= steps:
        raise ValueError(
            f"head.method.window={method.window} of rollout.num_diffusion_steps={steps} steps: what the last step adds "
            f"stays in the picture as noise; give {steps - 1} or less"
            if steps > 1
            else "rollout.num_diffusion_steps=1: the only step is the last one, whose noise would stay in the picture; "
            "flow_grpo needs 2 or more"
        )
    if isinstance(method, FlowGRPOSection) and not head.guided and guidance_scale != 1:
        raise ValueError(
            "head.guided=false: flow_grpo learns the probabilities of the sampler's own steps, and rollouts are guided "
            f"(rollout.guidance_scale={guidance_scale:g}); leave it out, or give rollout.guidance_scale=1"
        )
    if trainer.sync_ref_model and "tokens" not in learn:
        raise ValueError(
            "trainer.sync_ref_model: learn does not name the tokens, so the AR part stays as it is and has no "
            "reference that could follow it; leave it out"
        )
    if trainer.num_iterations > 1 and "tokens" not in learn:
        raise ValueError(
            "trainer.num_iterations: the head makes one update on a batch; give 1, or learn tokens as well"
        )
