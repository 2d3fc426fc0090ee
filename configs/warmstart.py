"""The typed form of a warm start's YAML file."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from blip3o_grpo.configs.policy import PolicySection
from blip3o_grpo.configs.section import Section


class WarmstartConfig(Section):
    """A supervised warm start: images and captions in, a policy in the released layout out."""

    run_dir: str = Field(min_length=1)
    """Folder of the run; the same command on it resumes."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Of the order of pictures, of noise and of what is dropped."""
    policy: PolicySection = PolicySection()
    images: str
    """Folder of images."""
    captions: str
    """JSONL with `file_name` (relative to `images`) and `text`, each file once; UTF-8."""
    preprocessing: Literal["released", "centre_crop"] = "released"
    """What pictures of another shape or size than the model's become. `released`: the whole picture, squashed to the
    square with bicubic filtering, once to the tokenizer's size (384 x 384) and once to the autoencoder's.
    `centre_crop`: its central square, resized to the autoencoder's size (Lanczos) and from there to the tokenizer's."""
    trains: tuple[Literal["ar", "connector", "sana", "sana_caption"], ...] = ("ar", "connector", "sana")
    """Parts that learn. `sana_caption`: of SANA only what takes in the connector's output (`caption_...`), as in the
    released training."""
    labels: Literal["image", "all"] = "image"
    """What the cross-entropy is over: image tokens, among image tokens; or prompt and image tokens, among all tokens of
    the vocabulary, as in the released training."""
    strategy: Literal["joint", "sequential"] = "joint"
    """`joint`: AR and diffusion head learn together. `sequential`: first the AR part alone, for `ar_steps`, then the
    head on the frozen AR part."""
    max_steps: int = Field(default=1000, ge=1, le=10**9)
    """Optimiser steps, of both phases together."""
    ar_steps: int = Field(default=0, ge=0, le=10**9)
    """`sequential` only: how many of `max_steps` train the AR part; 0 = it is already trained."""
    batch_size: int = Field(default=64, ge=1, le=1_000_000)
    """Pictures of a step."""
    learning_rate: float = Field(default=1e-4, gt=0)
    """At the end of its warm-up; from there it falls along a cosine. AdamW."""
    warmup_steps: int = Field(default=100, ge=0)
    """Steps over which the learning rate rises from 0."""
    adam_beta2: float = Field(default=0.98, gt=0, lt=1)
    """AdamW's second momentum."""
    weight_decay: float = Field(default=0.01, ge=0)
    """AdamW's."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradients of a larger norm are scaled down to it."""
    condition_dropout: float = Field(default=0.1, ge=0, lt=1)
    """Share of samples whose condition is zeroed, which teaches the unconditional branch of guidance."""
    condition_noise: float = Field(default=0.0, ge=0)
    """Standard deviation of noise on the hidden states, as a share of their own: the head that learns under it goes on
    decoding cleanly when fine-tuning moves the AR part."""
    caption_swap: float = Field(default=0.0, ge=0, lt=1)
    """Share of samples whose caption is another sample's: they train only the head, to trust tokens over words."""
    anchor_weight: float = Field(default=0.0, ge=0)
    """Weight of an auxiliary loss: each image token's hidden state tells its row, its column and which token it is.
    Next-token prediction alone lets a policy trained from scratch forget all three, and the head cannot decode them."""
    checkpoint_every_steps: int = Field(default=500, ge=1)
    """Steps between two checkpoints."""
    threads: int | None = Field(default=None, ge=1, le=4096)
    """CPU threads; None: PyTorch's choice."""

    @model_validator(mode="after")
    def _policy(self) -> WarmstartConfig:
        if self.policy.type != "blip3o_next":
            raise ValueError(f"policy.type={self.policy.type}: warm starts know BLIP3o-NEXT only; leave it out")
        return self

    @model_validator(mode="after")
    def _ar_steps(self) -> WarmstartConfig:
        if self.ar_steps and self.strategy == "joint":
            raise ValueError("ar_steps: only for strategy sequential; with joint both parts learn at every step")
        if self.ar_steps > self.max_steps:
            raise ValueError(f"ar_steps: {self.ar_steps} is more than max_steps, {self.max_steps}")
        if self.ar_steps and "ar" not in self.trains:
            raise ValueError("ar_steps: the part 'ar' is not in trains, so it has no steps")
        return self

    @model_validator(mode="after")
    def _trains(self) -> WarmstartConfig:
        if not self.trains:
            raise ValueError("trains: nothing would learn; name 'ar', 'connector', 'sana' or 'sana_caption'")
        repeated = sorted({part for part in self.trains if self.trains.count(part) > 1})
        if repeated:
            raise ValueError(f"trains: {repeated[0]!r} is named twice")
        if {"sana", "sana_caption"} <= set(self.trains):
            raise ValueError("trains: 'sana' holds 'sana_caption'; name one of them")
        if self.strategy == "sequential" and self.ar_steps < self.max_steps and self.trains == ("ar",):
            raise ValueError(
                f"trains: after ar_steps={self.ar_steps} the head learns; name 'connector', 'sana' or 'sana_caption'"
            )
        return self
