"""VQ-SigLIP2 (TA-Tok): turns images into the discrete tokens the AR policy writes.

SigLIP2 vision tower, hidden layer -2, optional average pooling by 1, 2 or 3, Linear + Tanh, Linear to the bottleneck,
then SimVQ: the code vectors are a learned linear map of a learned table. RL never runs this; warm start and
reconstruction do. Left out: the stochastic quantisation of TA-Tok's own training.

Source: "Vision as a Dialect" (Tar), https://arxiv.org/abs/2506.18898, and the parameter names of `ta_tok.pth`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
import torch.nn.functional as F
from torch import nn
from transformers import Qwen3Config, Siglip2VisionConfig, Siglip2VisionModel, SiglipVisionConfig, SiglipVisionModel

POOLING_SCALES = (1, 2, 3)  # <S0>, <S1>, <S2>

RELEASED_TOWER = {
    "image_size": 384,
    "patch_size": 14,
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "hidden_act": "gelu_pytorch_tanh",
    "bottleneck_dim": 1536,
    "decoder_layers": 3,
    "decoder_intermediate_size": 3072,
    "decoder_attention_heads": 12,
    "l2_normalized": True,
}
"""The released tokenizer. Its decoder keeps the sizes of transformers' default Siglip2 but for width and depth."""

CARRIED = {
    "scale_layer.shift": (1, 3, 1, 1),
    "scale_layer.scale": (1, 3, 1, 1),
    "bottleneck.regularizer.stochastic_temperature_inv": (),
}
"""Tensors that TA-Tok may hold and nothing here needs, with their shapes: kept as they are, so saving loses none."""


def released_tower(shapes: Mapping[str, tuple[int, ...]]) -> dict:
    """`RELEASED_TOWER` with the sizes that TA-Tok's tensors show.

    Args:
        shapes: by TA-Tok's own names (`bottleneck.in_linear.weight`, ...).
    """
    tower = dict(RELEASED_TOWER)
    layer = "decoder.vision_model.encoder.layers."
    layers = {name.removeprefix(layer).partition(".")[0] for name in shapes if name.startswith(layer)}
    if layers:
        tower["decoder_layers"] = len(layers)
    for key, name in (
        ("bottleneck_dim", "bottleneck.in_linear.weight"),
        ("decoder_intermediate_size", f"{layer}0.mlp.fc1.weight"),
    ):
        if name in shapes:
            tower[key] = shapes[name][0]
    return tower


def empty_tokenizer(config: Qwen3Config, shapes: Mapping[str, tuple[int, ...]]) -> VQSigLIP2:
    """The tokenizer of a checkpoint without its weights.

    Args:
        config: of the policy.
        shapes: of TA-Tok's tensors by its own names.
    """
    tower = getattr(config, "vision_tower_config", None) or released_tower(shapes)
    return VQSigLIP2(tower, config.num_image_tokens, [name for name in CARRIED if name in shapes])


class SimVQ(nn.Module):
    """Nearest code among `embedding_proj(embedding.weight)`; deterministic.

    Source: SimVQ, https://arxiv.org/abs/2411.02038.
    """

    def __init__(self, num_codes: int, dim: int, l2_normalized: bool):
        super().__init__()
        self.l2_normalized = l2_normalized
        self.embedding = nn.Embedding(num_codes, dim)
        self.embedding_proj = nn.Linear(dim, dim)

    def codes(self) -> torch.Tensor:
        """Code vectors `[K, dim]`."""
        codes = self.embedding_proj(self.embedding.weight)
        return F.normalize(codes, dim=-1) if self.l2_normalized else codes

    def indices(self, features: torch.Tensor) -> torch.Tensor:
        """Index of the nearest code `[...]` for features `[..., dim]`."""
        codes = self.codes()
        if self.l2_normalized:
            return (features @ codes.T).argmax(-1)
        # argmin of |f - c|^2; |f|^2 is the same for all codes
        return (codes.pow(2).sum(-1) - 2 * features @ codes.T).argmin(-1)

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Straight-through quantised features `[..., dim]`, indices `[...]`, commitment loss (scalar)."""
        if self.l2_normalized:
            features = F.normalize(features, dim=-1)
        indices = self.indices(features)
        quantised = self.codes()[indices]
        loss = (quantised - features.detach()).pow(2).mean() + 0.25 * (quantised.detach() - features).pow(2).mean()
        return features + (quantised - features).detach(), indices, loss


class Bottleneck(nn.Module):
    """Linear down, quantise, linear back, in TA-Tok's parameter names."""

    def __init__(self, input_dim: int, dim: int, num_codes: int, l2_normalized: bool):
        super().__init__()
        self.in_linear = nn.Linear(input_dim, dim)
        self.out_linear = nn.Linear(dim, dim)
        self.regularizer = SimVQ(num_codes, dim, l2_normalized)


class VQSigLIP2(nn.Module):
    """Images to token indices, and token indices to SigLIP2-like features.

    Args:
        tower: keys of `RELEASED_TOWER`, from `vision_tower_config` of a checkpoint's config; those that begin with
            `decoder_` may be left out for sizes like the encoder's.
        num_codes: size of the codebook (the policy's `num_image_tokens`).
        carried: names from `CARRIED` that the checkpoint holds.
    """

    def __init__(self, tower: dict, num_codes: int, carried: Iterable[str] = ()):
        super().__init__()
        tower = dict(tower)
        bottleneck_dim, decoder_layers = tower.pop("bottleneck_dim"), tower.pop("decoder_layers")
        l2_normalized = tower.pop("l2_normalized")
        decoder_intermediate_size = tower.pop("decoder_intermediate_size", tower["intermediate_size"])
        decoder_attention_heads = tower.pop("decoder_attention_heads", tower["num_attention_heads"])
        config = SiglipVisionConfig(**tower)
        hidden = config.hidden_size
        self.image_size = config.image_size
        self.grid_size = config.image_size // config.patch_size
        self.encoder = SiglipVisionModel(config)
        self.decoder = Siglip2VisionModel(
            Siglip2VisionConfig(
                hidden_size=hidden,
                intermediate_size=decoder_intermediate_size,
                num_hidden_layers=decoder_layers,
                num_attention_heads=decoder_attention_heads,
                num_channels=bottleneck_dim,
                num_patches=256,
                patch_size=1,
            )
        )
        self.encode_task_layer = nn.Sequential(nn.Linear(hidden, hidden), nn.Tanh())
        self.decode_task_layer = nn.Sequential(nn.Linear(hidden, hidden), nn.Tanh(), nn.Linear(hidden, hidden))
        self.bottleneck = Bottleneck(hidden, bottleneck_dim, num_codes, l2_normalized)
        for name in carried:
            owner, _, leaf = name.rpartition(".")
            if owner == "scale_layer" and not hasattr(self, owner):
                self.scale_layer = nn.Module()
            self.get_submodule(owner).register_buffer(leaf, torch.empty(CARRIED[name], device="meta"))

    def features(self, images: torch.Tensor, pooling: int = 1) -> torch.Tensor:
        """Bottleneck features `[B, T, dim]` before quantising.

        Args:
            images: `[B, 3, H, W]` in [0, 1], any size; resized to the tower's square.
            pooling: 1, 2 or 3, the side of the average pool over patches.

        Raises:
            ValueError: another pooling.
        """
        if pooling not in POOLING_SCALES:
            raise ValueError(f"pooling is {pooling}; the scales are {POOLING_SCALES}")
        if images.shape[-2:] != (self.image_size, self.image_size):
            images = F.interpolate(images, size=(self.image_size,) * 2, mode="bilinear", antialias=True)
        hidden = self.encoder(images * 2 - 1, output_hidden_states=True).hidden_states[-2]
        if pooling != 1:
            square = hidden.transpose(1, 2).unflatten(2, (self.grid_size, self.grid_size))
            hidden = F.avg_pool2d(square, pooling).flatten(2).transpose(1, 2)
        return self.bottleneck.in_linear(self.encode_task_layer(hidden))

    @torch.no_grad()
    def encode(self, images: torch.Tensor, pooling: int = 1) -> torch.Tensor:
        """Token indices `[B, T]` in 0 .. num_codes - 1 for images `[B, 3, H, W]` in [0, 1]."""
        features = self.features(images, pooling)
        if self.bottleneck.regularizer.l2_normalized:
            features = F.normalize(features, dim=-1)
        return self.bottleneck.regularizer.indices(features)

    def reconstruct(self, quantised: torch.Tensor) -> torch.Tensor:
        """SigLIP2-like features `[B, T, hidden]` from quantised features `[B, T, dim]`, T a square."""
        latents = self.bottleneck.out_linear(quantised)
        side = int(latents.shape[1] ** 0.5)
        hidden = self.decoder(
            latents,
            latents.new_ones(latents.shape[:2], dtype=torch.int),
            torch.full((len(latents), 2), side, device=latents.device),
        ).last_hidden_state
        return self.decode_task_layer(hidden)
