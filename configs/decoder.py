"""The section `rollout.decoder`: what trades start-up time, memory and speed of decoders. All off: plain diffusers."""

from __future__ import annotations

from blip3o_grpo.configs.section import Section


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
    """Decode pictures above 512 px in overlapping tiles: the peak of one tile, but only nearly the same images."""
