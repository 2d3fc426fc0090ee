"""From image features to pixels and back: what a policy asks of a pixel decoder, and the one that is here.

BLIP3-o's own paints CLIP features by a fine-tuned SDXL (UNet and VAE), whose code comes with its checkpoint only. Here
features are the latents of a DC-AE, for which diffusers has both ways.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from diffusers import AutoencoderDC
from torch import nn


class PixelDecoder(Protocol):
    """Pixels of features `[B, C, h, w]`, and the features that a picture has."""

    def features_of(self, pixels: torch.Tensor) -> torch.Tensor:
        """Features `[B, C, h, w]` of RGB `[B, 3, H, W]` in [0, 1]."""

    def pixels_of(self, features: torch.Tensor) -> torch.Tensor:
        """RGB `[B, 3, H, W]` in [0, 1], float32, of features `[B, C, h, w]`."""


class AutoencoderDecoder(nn.Module):
    """A `PixelDecoder` whose features are a DC-AE's scaled latents.

    Args:
        config: of `diffusers.AutoencoderDC`.
    """

    def __init__(self, config: dict[str, Any]):
        super().__init__()
        self.vae = AutoencoderDC.from_config(config)

    @torch.no_grad()
    def features_of(self, pixels: torch.Tensor) -> torch.Tensor:
        """See `PixelDecoder`."""
        return self.vae.encode((pixels * 2 - 1).to(self.vae.dtype)).latent.float() * self.vae.config.scaling_factor

    @torch.no_grad()
    def pixels_of(self, features: torch.Tensor) -> torch.Tensor:
        """See `PixelDecoder`."""
        latents = features / self.vae.config.scaling_factor
        return (self.vae.decode(latents.to(self.vae.dtype)).sample.float() / 2 + 0.5).clamp(0, 1)
