"""The two tools of the tiny policy, trained on drawn pixels: DC-AE and VQ-SigLIP2."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from rich.console import Console
from torch import nn

from blip3o_grpo.policies.blip3o_next.policy import BLIP3oNext
from scripts.tiny_build.patches import Codebook, cut, floats
from scripts.tiny_build.training import fit

LATENT_NOISE = 0.12


def train_autoencoder(
    policy: BLIP3oNext, codebook: Codebook, images: torch.Tensor, steps: int, console: Console, batch_size: int = 16
) -> None:
    """DC-AE: the encoder names the latents of `codebook`, the decoder paints from them (L1 on pixels and differences).

    Noise on the latents makes the decoder forgive a diffusion head that is slightly off.
    """
    vae = policy.vae.train()
    codes = codebook.codes(images)
    generator = torch.Generator().manual_seed(1)

    def reconstruction(rows: torch.Tensor) -> dict[str, torch.Tensor]:
        batch, wanted = floats(images[rows]), codebook.latent_maps(codes[rows])
        output = vae.decode(wanted + LATENT_NOISE * torch.randn(wanted.shape, generator=generator)).sample
        pixel = F.l1_loss(output, batch)
        edges = F.l1_loss(output.diff(dim=-1), batch.diff(dim=-1)) + F.l1_loss(output.diff(dim=-2), batch.diff(dim=-2))
        naming = F.mse_loss(vae.encode(batch).latent, wanted)
        return {"loss": pixel + 0.5 * edges + naming, "l1": pixel, "naming": naming}

    fit("autoencoder", list(vae.parameters()), reconstruction, len(images), steps, batch_size, generator, console)
    vae.eval()


def train_tokenizer(
    policy: BLIP3oNext, codebook: Codebook, images: torch.Tensor, steps: int, console: Console, batch_size: int = 48
) -> None:
    """VQ-SigLIP2: the nearest code must name the patch; then the decoder must give it back.

    The tower learns by cross-entropy over distances to codes which patch it sees; vector quantisation by
    reconstruction alone gives one code to several letters here. The decoder follows with the codes frozen, under a
    pixel head that exists only during training.
    """
    vision = policy.vision.train()
    quantiser = vision.bottleneck.regularizer
    tower = policy.config.vision_tower_config
    names = codebook.codes(images)
    weights = torch.ones(policy.config.num_image_tokens)
    weights[: len(codebook.counts)] = codebook.counts.float().rsqrt()
    nn.init.normal_(quantiser.embedding.weight)
    with torch.no_grad():
        quantiser.embedding_proj.weight.copy_(torch.eye(tower["bottleneck_dim"]))
        quantiser.embedding_proj.bias.zero_()
    naming_parts = [vision.encoder, vision.encode_task_layer, vision.bottleneck.in_linear, quantiser]
    parameters = [parameter for part in naming_parts for parameter in part.parameters()]
    generator = torch.Generator().manual_seed(2)

    def naming(rows: torch.Tensor) -> dict[str, torch.Tensor]:
        features = vision.features(images[rows].float() / 255)
        distances = torch.cdist(features.flatten(0, 1), quantiser.codes()).pow(2)
        wrong = (distances.argmin(-1) != names[rows].flatten()).float().mean()
        return {"loss": F.cross_entropy(-distances, names[rows].flatten(), weight=weights), "wrong": wrong}

    fit("naming", parameters, naming, len(images), steps, batch_size, generator, console)
    pieces = cut(images)
    to_pixels = nn.Linear(tower["hidden_size"], pieces.shape[-1])
    decoding_parts = [vision.decoder, vision.decode_task_layer, vision.bottleneck.out_linear, to_pixels]
    parameters = [parameter for part in decoding_parts for parameter in part.parameters()]

    def decoding(rows: torch.Tensor) -> dict[str, torch.Tensor]:
        with torch.no_grad():
            quantised = quantiser.codes()[names[rows]]
        return {"loss": F.l1_loss(to_pixels(vision.reconstruct(quantised)), floats(pieces[rows]))}

    fit("decoding", parameters, decoding, len(images), steps // 5, batch_size, generator, console)
    vision.eval()
