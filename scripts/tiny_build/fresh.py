"""The AR part trained on with a new picture in every row: what a caption's words bind, no fixed set of pictures shows.

Relations and the colours of two shapes are rare among twenty thousand pictures, and a policy that has seen few of them
draws both shapes and guesses the rest. Here nothing is seen twice, and these prompts come as often as is needed.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from blip3o_grpo.policies.blip3o_next.policy import BLIP3oNext
from blip3o_grpo.policies.tiny_world import world
from blip3o_grpo.policies.tiny_world.ladder import SWAPS, word_swap
from blip3o_grpo.warmstart.anchor import make_probe
from blip3o_grpo.warmstart.loss import Batch, warmstart_loss
from scripts.tiny_build.captions import Noise, noisy_caption
from scripts.tiny_build.patches import draw
from scripts.tiny_build.training import fit


@dataclass(frozen=True)
class Mix:
    """Which pictures a batch has."""

    signs: float
    """Share of signs."""
    weights: Mapping[str, int]
    """Of the tags among the others; 1 where a tag is not named."""

    def tag(self, rng: random.Random) -> str:
        """Of the next picture."""
        if rng.random() < self.signs:
            return "sign"
        return rng.choices(world.TAGS, [self.weights.get(tag, 1) for tag in world.TAGS])[0]


BINDING = Mix(0.04, {"color_attr": 8, "position": 8, "two_object": 2})
"""Mostly prompts that ask for another picture when two of their words change places."""
EVERYTHING = Mix(0.5, {"color_attr": 3, "position": 3, "two_object": 2})
SWAP_SCENES = 64
SWAP_STEPS = 250


def train_on_fresh(
    start: Path,
    folder: Path,
    *,
    steps: int,
    batch_size: int,
    peak_rate: float,
    mix: Mix,
    noise: Noise,
    seed: int,
    console: Console,
    checkpoint: Path,
) -> Path:
    """The policy at `start` with its AR part trained on, written to `folder`.

    Args:
        noise: mistakes of the captions.
        seed: of the pictures.
    """
    policy = BLIP3oNext.from_pretrained(start, parts=("ar", "head", "vision"))
    policy.requires_grad_(False)
    policy.ar.requires_grad_(True)
    first = _batch(policy, random.Random(seed), batch_size, mix, Noise())
    probe = make_probe(policy, first.ids, first.mask)
    done = 0

    def losses(rows: torch.Tensor) -> dict[str, torch.Tensor]:
        nonlocal done
        # `rows` are of no file: four random numbers that a resumed stage draws again, so they seed the step's pictures.
        batch = _batch(policy, random.Random(f"{seed}:{rows.tolist()}"), batch_size, mix, noise)
        loss, metrics = warmstart_loss(policy, batch, train_head=False, probe=probe, anchor_weight=1.0)
        if done % SWAP_STEPS == 0:
            told = {tag: word_swap(policy, draw(SWAP_SCENES, 5, heldout=True, tag=tag)).mean() for tag in SWAPS}
            console.print("word swap, nats:", {tag: round(float(nats), 2) for tag, nats in told.items()})
        done += 1
        return {"loss": loss} | {name: torch.tensor(value) for name, value in metrics.items()}

    parameters = [*policy.ar.parameters(), *probe.parameters()]
    generator = torch.Generator().manual_seed(seed)
    fit("fresh", parameters, losses, 1 << 30, steps, 4, generator, console, peak_rate, checkpoint)
    policy.save_pretrained(folder)
    return folder


def _batch(policy: BLIP3oNext, rng: random.Random, size: int, mix: Mix, noise: Noise) -> Batch:
    """New pictures of the training split and their captions."""
    scenes = [world.sample(rng, heldout=False, tag=mix.tag(rng)) for _ in range(size)]
    images = torch.from_numpy(np.stack([world.render(scene) for scene in scenes])).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        tokens = policy.vision.encode(images) + policy.image_tokens.start
    ids, mask = policy.prompts.pad([policy.prompts.encode(noisy_caption(scene, rng, noise)) for scene in scenes])
    nothing = torch.zeros(size)
    return Batch(
        ids=torch.cat([ids, tokens], 1),
        mask=torch.cat([mask, torch.ones_like(tokens)], 1),
        latents=nothing,
        honest=torch.ones(size, dtype=torch.bool),
        conditioned=nothing.bool(),
        noise=nothing,
        timesteps=nothing.long(),
    )
