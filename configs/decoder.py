"""The section `rollout.decoder`: what trades start-up time, memory and speed of decoders. All off: plain diffusers."""

from __future__ import annotations

from pydantic import field_validator

from blip3o_grpo.configs.section import Section

LARGEST_CHANGE = 1e-4
"""Of a pixel in [0, 1], by an option of decoders: what compiling changes at most (`docs/gpu.md`)."""
TILING_CHANGE = 0.054
"""Of a pixel on average, by tiles of 24 px in pictures of 56 px (`docs/gpu.md`)."""


class DecoderSection(Section):
    """How decoders run the diffusion head and the image decoder; see `policies/blip3o_next/decoding.py`."""

    compile: bool = False
    """Compile the head and the image decoder (`torch.compile`) at the first batch, which then takes long. On CPU it
    needs a C++ compiler."""
    channels_last: bool = False
    """Keep convolutions in channels-last memory."""
    vae_slicing: bool = False
    """Decode latents one image at a time: the peak of one image instead of a batch's; same images."""
    vae_tiling: bool = False
    """Refused if true: in overlapping tiles, images change by more than the `LARGEST_CHANGE` that options may make.
    Configurations of earlier runs have it."""

    @field_validator("vae_tiling")
    @classmethod
    def _keeps_images(cls, asked: bool) -> bool:
        if asked:
            raise ValueError(
                f"rollout.decoder.vae_tiling=true moves pixels in [0, 1] by {TILING_CHANGE:g} on average, and options "
                f"may move them by {LARGEST_CHANGE:g} at most; rollout.decoder.vae_slicing=true saves memory too"
            )
        return asked
