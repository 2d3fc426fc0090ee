"""The tiny world cut into patches: which exist, the code of each, and what each code stands for in numbers.

The world has little more than a thousand distinct 8 x 8 px patches. Knowing them, the build can name them exactly
instead of hoping that vector quantisation keeps two letters apart, and give each a latent vector that depends on
nothing but the patch, so that one image token tells the head all about one latent.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from blip3o_grpo.policies.blip3o_next.policy import BLIP3oNext
from blip3o_grpo.policies.tiny_world import world

COMPONENTS = 96  # principal components of a patch that the latents keep a mixture of


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


def cut(images: torch.Tensor) -> torch.Tensor:
    """uint8 `[N, 3, H, W]` to uint8 patches `[N, T, 192]`, row by row."""
    tiles = images.unfold(2, world.CELL, world.CELL).unfold(3, world.CELL, world.CELL)
    return tiles.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)


@dataclass(frozen=True)
class Codebook:
    """Every distinct patch, most frequent first: its row is its code.

    Attributes:
        distinct: uint8 `[K, 192]`.
        counts: how often each was seen, `[K]`.
        latents: `[K, C]`, the latent vector of each; every channel has mean 0 and variance 1 over the patches.
        components: `[K, 192]` principal components of the pixels, small ones amplified, mean square 1.
    """

    distinct: torch.Tensor
    counts: torch.Tensor
    latents: torch.Tensor
    components: torch.Tensor

    @classmethod
    def of(cls, images: torch.Tensor, num_codes: int, latent_channels: int) -> Codebook:
        """Count the patches of uint8 images `[N, 3, H, W]`.

        Latents mix principal components at random with the square root of their scale, so that two letters on the same
        plate stay as far apart as two plates.
        """
        distinct, counts = cut(images).flatten(0, 1).unique(dim=0, return_counts=True)
        order = counts.argsort(descending=True, stable=True)[:num_codes]
        distinct, counts = distinct[order], counts[order]
        centred = floats(distinct) - floats(distinct).mean(0)
        left, scale, _ = torch.linalg.svd(centred, full_matrices=False)
        components = left * scale.sqrt()
        mixing = torch.randn(min(COMPONENTS, len(scale)), latent_channels, generator=torch.Generator().manual_seed(0))
        latents = components[:, : len(mixing)] @ torch.linalg.qr(mixing)[0]
        return cls(
            distinct, counts, (latents - latents.mean(0)) / latents.std(0), components / components.pow(2).mean().sqrt()
        )

    def codes(self, images: torch.Tensor) -> torch.Tensor:
        """Codes `[N, T]` of uint8 images; a patch never seen gets the nearest one's."""
        known = {patch.tobytes(): code for code, patch in enumerate(self.distinct.numpy())}
        pieces = cut(images)
        flat = pieces.flatten(0, 1).contiguous()
        codes = torch.tensor([known.get(patch.tobytes(), -1) for patch in flat.numpy()])
        if (codes < 0).any():
            codes[codes < 0] = torch.cdist(flat[codes < 0].float(), self.distinct.float(), p=1).argmin(1)
        return codes.view(pieces.shape[:2])

    def latent_maps(self, codes: torch.Tensor) -> torch.Tensor:
        """Latents `[N, C, h, w]` of codes `[N, T]`."""
        side = world.SIZE // world.CELL
        return self.latents[codes].transpose(1, 2).unflatten(2, (side, side)).contiguous()

    def save(self, file: Path) -> None:
        """Write as safetensors."""
        save_file({name: value.contiguous() for name, value in vars(self).items()}, file)

    @classmethod
    def load(cls, file: Path) -> Codebook:
        """Read what `save` wrote."""
        return cls(**load_file(file))


@torch.no_grad()
def embed_patches(policy: BLIP3oNext, codebook: Codebook) -> None:
    """Image tokens start with embeddings (and `lm_head` rows) that look like what they stand for.

    The first channels of an embedding are the latent vector and no layer writes to them at first, so the last hidden
    state starts by telling the head what to paint; the other channels are principal components of the patch. From
    random embeddings every one of a thousand tokens would have to be learnt by itself; like this a letter's shape is
    shared by its colours.
    """
    width = codebook.latents.shape[1]
    rows = slice(policy.image_tokens.start, policy.image_tokens.start + len(codebook.latents))
    components = codebook.components[:, : policy.config.hidden_size - width]
    embeddings, head = policy.ar.model.embed_tokens.weight, policy.ar.lm_head.weight
    embeddings[rows, :width] = codebook.latents
    embeddings[rows, width : width + components.shape[1]] = 0.5 * components
    head[rows, :width] = 0
    head[rows, width : width + components.shape[1]] = 0.05 * components
    for layer in policy.ar.model.layers:
        layer.self_attn.o_proj.weight[:width] = 0
        layer.mlp.down_proj.weight[:width] = 0
