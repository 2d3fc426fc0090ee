"""The rough variant of the tiny policy: the same tokens, painted by a head that went on learning from blurred pictures.

The finished head paints exactly what the tokens say, so RL has nothing to teach it. This one has since seen pictures
out of focus, some more and some less, as photographs are; tokens do not tell how much. It learnt to paint all of them,
and the noise decides which: a reward that reads the picture has something to say about the head.
"""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageFilter
from rich.console import Console

from blip3o_grpo.policies.blip3o_next.policy import BLIP3oNext
from blip3o_grpo.policies.tiny_world import world
from blip3o_grpo.warmstart.loss import Batch, warmstart_loss
from scripts.tiny_build.patches import draw
from scripts.tiny_build.training import fit

BLUR = (0.5, 3.0)
"""Radii of the Gaussian blur of pictures of 56 px, uniform."""
PEAK_RATE = 5e-4
CONDITION_DROPOUT = 0.1


def roughen(start: Path, folder: Path, *, pictures: int, steps: int, batch_size: int, console: Console) -> Path:
    """The policy at `start` with connector and SANA trained on, written to `folder`."""
    policy = BLIP3oNext.from_pretrained(start, parts=("ar", "head", "vision"))
    scenes = draw(pictures, 1)
    prompts = [policy.prompts.encode(scene.prompt) for scene in scenes]
    tokens, latents = encode_out_of_focus(policy, [world.render(scene) for scene in scenes])
    generator = torch.Generator().manual_seed(0)

    def flow_matching(rows: torch.Tensor) -> dict[str, torch.Tensor]:
        ids, mask = policy.prompts.pad([prompts[row] for row in rows.tolist()])
        batch = Batch(
            ids=torch.cat([ids, tokens[rows]], 1),
            mask=torch.cat([mask, torch.ones_like(tokens[rows])], 1),
            latents=latents[rows],
            honest=torch.ones(len(rows), dtype=torch.bool),
            conditioned=torch.rand(len(rows), generator=generator) >= CONDITION_DROPOUT,
            noise=torch.randn(latents[rows].shape, generator=generator),
            timesteps=torch.randint(len(policy.scheduler.timesteps), (len(rows),), generator=generator),
        )
        return {"loss": warmstart_loss(policy, batch, train_ar=False)[0]}

    parameters = [*policy.connector.parameters(), *policy.sana.parameters()]
    fit("rough", parameters, flow_matching, pictures, steps, batch_size, generator, console, PEAK_RATE)
    policy.save_pretrained(folder)
    return folder


@torch.no_grad()
def encode_out_of_focus(
    policy: BLIP3oNext, images: list[np.ndarray], batch_size: int = 128
) -> tuple[torch.Tensor, torch.Tensor]:
    """Vocabulary ids `[N, T]` of the pictures as drawn, and latents `[N, C, h, w]` of the pictures blurred."""
    blurred, tokens, latents = out_of_focus(images, BLUR), [], []
    for start in range(0, len(images), batch_size):
        tokens.append(policy.vision.encode(_unit(images[start : start + batch_size])) + policy.image_tokens.start)
        latents.append(policy.vae.encode(_unit(blurred[start : start + batch_size]) * 2 - 1).latent)
    return torch.cat(tokens), torch.cat(latents) * policy.vae.config.scaling_factor


def out_of_focus(images: list[np.ndarray], radii: tuple[float, float]) -> list[Image.Image]:
    """The pictures under Gaussian blur, each with a radius (px) of its own, uniform between these; reproducible."""
    rng = random.Random(2)
    return [Image.fromarray(image).filter(ImageFilter.GaussianBlur(rng.uniform(*radii))) for image in images]


def _unit(images: list[np.ndarray] | list[Image.Image]) -> torch.Tensor:
    """`[N, 3, H, W]` in [0, 1]."""
    return torch.from_numpy(np.stack([np.asarray(image) for image in images])).permute(0, 3, 1, 2).float() / 255
