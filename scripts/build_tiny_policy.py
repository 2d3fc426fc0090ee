"""Build the tiny policy that ships with the project, stage by stage, and measure whether GRPO can teach it anything.

    python scripts/build_tiny_policy.py --work runs/tiny_build          # one to three hours on one core, resumable
    python scripts/build_tiny_policy.py --work /tmp/smoke --smoke       # a minute, untrained quality

Stages, each skipped when its output is in the work folder: `autoencoder` (DC-AE on drawn pixels), `tokenizer`
(VQ-SigLIP2 on drawn pixels), `warmstart` (AR and diffusion head jointly, from noisy captions), `ladder` (the
measurements of `ladder.json`). `--output` receives the finished checkpoint in bfloat16.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from scipy.cluster.vq import kmeans2
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from policies import world
from policies.architecture import random_policy
from policies.blip3o_next import BLIP3oNext

console = Console()


def draw(num: int, seed: int, *, heldout: bool = False, tag: str | None = None) -> list[world.Scene]:
    """Scenes of one split, reproducible."""
    rng = random.Random(seed)
    return [world.sample(rng, heldout=heldout, tag=tag) for _ in range(num)]


def pixels(scenes: list[world.Scene]) -> torch.Tensor:
    """Drawn scenes as uint8 `[N, 3, H, W]`."""
    return torch.from_numpy(np.stack([world.render(scene) for scene in scenes])).permute(0, 3, 1, 2).contiguous()


def floats(images: torch.Tensor) -> torch.Tensor:
    """uint8 images to [-1, 1]."""
    return images.float() / 127.5 - 1


class Clock:
    """Prints a line every so many steps, with the running mean of each loss."""

    def __init__(self, stage: str, steps: int, every: int = 50):
        self.stage, self.steps, self.every, self.start, self.means = stage, steps, every, time.time(), {}

    def tick(self, step: int, **losses: float) -> None:
        for name, value in losses.items():
            self.means[name] = 0.95 * self.means.get(name, value) + 0.05 * value
        if step % self.every == 0 or step == self.steps - 1:
            text = "  ".join(f"{name} {value:.4f}" for name, value in self.means.items())
            console.print(f"{self.stage} {step}/{self.steps}  {text}  {time.time() - self.start:.0f} s")


def schedule(optimizer: torch.optim.Optimizer, step: int, steps: int, peak: float, warmup: int) -> None:
    """Linear warm-up, then cosine to 2 % of the peak."""
    progress = max(0.0, (step - warmup) / max(1, steps - warmup))
    rate = peak * min(1.0, (step + 1) / warmup) * (0.02 + 0.98 * 0.5 * (1 + np.cos(np.pi * progress)))
    for group in optimizer.param_groups:
        group["lr"] = rate


def train_autoencoder(policy: BLIP3oNext, images: torch.Tensor, steps: int, batch_size: int = 32) -> None:
    """DC-AE on drawn pixels: L1 on pixels and on their differences; latents kept at mean 0 and variance 1."""
    vae = policy.vae.train()
    optimizer = torch.optim.AdamW(vae.parameters(), 2e-3, betas=(0.9, 0.95), weight_decay=0.0)
    clock = Clock("autoencoder", steps)
    generator = torch.Generator().manual_seed(1)
    for step in range(steps):
        schedule(optimizer, step, steps, 2e-3, 50)
        batch = floats(images[torch.randint(len(images), (batch_size,), generator=generator)])
        latents = vae.encode(batch).latent
        output = vae.decode(latents + 0.02 * torch.randn(latents.shape, generator=generator)).sample
        pixel = F.l1_loss(output, batch)
        edges = F.l1_loss(output.diff(dim=-1), batch.diff(dim=-1)) + F.l1_loss(output.diff(dim=-2), batch.diff(dim=-2))
        mean, std = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
        loss = pixel + 0.5 * edges + 0.01 * (mean.pow(2).mean() + (std - 1).pow(2).mean())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        clock.tick(step, l1=pixel.item(), std=std.mean().item())
    vae.eval()


def train_tokenizer(policy: BLIP3oNext, images: torch.Tensor, steps: int, batch_size: int = 48) -> None:
    """VQ-SigLIP2 on drawn pixels: first without quantising, then with a codebook initialised from the features.

    A codebook drawn at random collapses to one code. The pixel head exists only here.
    """
    vision = policy.vision.train()
    patch = policy.config.vision_tower_config["patch_size"]
    to_pixels = nn.Linear(policy.config.vision_tower_config["hidden_size"], 3 * patch * patch)
    parameters = [*vision.parameters(), *to_pixels.parameters()]
    clock = Clock("tokenizer", steps)
    generator = torch.Generator().manual_seed(2)
    half = steps // 2
    for step in range(steps):
        if step in (0, half):  # the second half starts anew with a codebook
            optimizer = torch.optim.AdamW(parameters, 1e-3, betas=(0.9, 0.95), weight_decay=0.0)
        if step == half:
            initialise_codebook(vision, images)
        schedule(optimizer, step % half, half, 2e-3, 20)
        batch = images[torch.randint(len(images), (batch_size,), generator=generator)].float() / 255
        features = vision.features(batch)
        quantised, commitment = features, torch.zeros(())
        if step >= half:
            quantised, _, commitment = vision.bottleneck.regularizer(features)
        output = to_pixels(vision.reconstruct(quantised))  # [B, T, 3 * patch * patch]
        target = F.unfold(batch * 2 - 1, patch, stride=patch).transpose(1, 2)
        loss = F.l1_loss(output, target) + 0.1 * F.mse_loss(output, target) + commitment
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        clock.tick(step, l1=F.l1_loss(output, target).item(), commitment=commitment.item())
    vision.eval()
    used = len(torch.cat([vision.encode(images[i : i + 256].float() / 255) for i in range(0, 4096, 256)]).unique())
    console.print(f"tokenizer: {used} of {policy.config.num_image_tokens} codes used")


@torch.no_grad()
def initialise_codebook(vision: nn.Module, images: torch.Tensor) -> None:
    """Codes at the k-means centres of distinct features; SimVQ's projection starts as the identity."""
    codebook = vision.bottleneck.regularizer
    features = torch.cat([vision.features(images[i : i + 128].float() / 255) for i in range(0, 4096, 128)])
    distinct = torch.unique((features.flatten(0, 1) * 20).round(), dim=0) / 20
    num_codes, dim = codebook.embedding.weight.shape
    centres, _ = kmeans2(distinct.numpy(), num_codes, iter=15, minit="++", rng=0)
    codebook.embedding.weight.copy_(torch.from_numpy(centres))
    codebook.embedding_proj.weight.copy_(torch.eye(dim))
    codebook.embedding_proj.bias.zero_()
    console.print(f"tokenizer: codebook from {len(distinct)} distinct features")
