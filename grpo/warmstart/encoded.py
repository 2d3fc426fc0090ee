"""A warm start's pictures as tokens (VQ-SigLIP2) and latents (DC-AE), and the file in the run folder that keeps them.

The file counts only for what it was made of: the bytes of the pictures in their order, the way they were made to fit,
and the weights of both encoders. Anything else, and a file that is damaged or of an older version, is encoded again.
Captions are not part of it; they are tokenised at every start.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from blip3o_grpo.configs.atomic import staged_file
from blip3o_grpo.policies import BLIP3oNext, PromptEncoder, PromptError
from blip3o_grpo.progress import Bar
from blip3o_grpo.rewards.images import open_rgb
from blip3o_grpo.warmstart.captions import CaptionedPicture, WarmstartDataError

FORMAT = "2"
"""Of the file. Version 1 said nothing about what it was made of."""
BATCH = 128


@dataclass(frozen=True)
class EncodedPictures:
    """Tokens and latents of all pictures, in the order of their captions."""

    tokens: torch.Tensor  # [N, T] int32, 0-based codes
    latents: torch.Tensor  # [N, C, h, w], scaled by the autoencoder's factor

    def digest(self) -> str:
        """SHA-256 of all values."""
        return _digest({"tokens": self.tokens, "latents": self.latents})


def encode_captions(prompts: PromptEncoder, pictures: list[CaptionedPicture]) -> list[list[int]]:
    """Token ids of every caption, ending in `<im_start><S0>`.

    Raises:
        WarmstartDataError: a caption that the policy cannot read, naming its line.
    """
    encoded = []
    for picture in pictures:
        try:
            encoded.append(prompts.encode(picture.caption))
        except PromptError as error:
            raise WarmstartDataError(f"{picture.place}: {error}") from error
    return encoded


def load_or_encode(
    policy: BLIP3oNext,
    pictures: list[CaptionedPicture],
    *,
    content: str,
    preprocessing: str,
    file: Path,
    console: Console,
    warn: Callable[[str], None],
) -> EncodedPictures:
    """What `file` holds, if it was made of just this; else the pictures are encoded and `file` is written.

    Args:
        content: `digest_pictures` of the pictures.
        preprocessing: of `WarmstartConfig`.
        file: safetensors.
        warn: told why a file that is there does not count.

    Raises:
        ImageFileError, WarmstartDataError: a picture that cannot be read, or that the autoencoder cannot encode.
        StorageError: `file` cannot be written.
    """
    origin = {
        "format": FORMAT,
        "pictures": content,
        "preprocessing": preprocessing,
        "encoders": _encoders(policy),
    }
    if file.is_file():
        try:
            return _read(file, origin)
        except _OtherOriginError as reason:
            warn(f"{file}: {reason}; the pictures are encoded again")
    encoded = encode(policy, pictures, preprocessing, console)
    with staged_file(file) as staged:
        save_file(vars(encoded), staged, metadata=origin | {"values": encoded.digest()})
    return encoded


def encode(
    policy: BLIP3oNext, pictures: list[CaptionedPicture], preprocessing: str, console: Console
) -> EncodedPictures:
    """Tokens and latents of every picture.

    Raises:
        ImageFileError, WarmstartDataError: as `load_or_encode`.
    """
    fit = FITS[preprocessing]
    sizes = policy.vision.image_size, policy.sana.config.sample_size * policy.vae.spatial_compression_ratio
    tokens, latents = [], []
    with Bar(console, "encoding pictures", len(pictures), unit="picture") as bar:
        for start in range(0, len(pictures), BATCH):
            batch = pictures[start : start + BATCH]
            fitted = [fit(open_rgb(picture.path), *sizes) for picture in batch]
            seen, wanted = (torch.stack([_pixels(pair[side]) for pair in fitted]) for side in (0, 1))
            with torch.no_grad():
                tokens.append(policy.vision.encode(seen).int())
                latent = policy.vae.encode(wanted * 2 - 1).latent
            shift = policy.vae.config.get("shift_factor") or 0.0
            latent = (latent - shift) * policy.vae.config.scaling_factor
            for picture, finite in zip(batch, latent.isfinite().flatten(1).all(1).tolist(), strict=True):
                if not finite:
                    raise WarmstartDataError(
                        f"{picture.place}: the autoencoder makes NaN or infinity of {picture.path}; its weights are "
                        "damaged"
                    )
            latents.append(latent)
            bar.see(start + len(batch))
    return EncodedPictures(torch.cat(tokens), torch.cat(latents))


def fit_released(image: Image.Image, tokenizer_px: int, autoencoder_px: int) -> tuple[Image.Image, Image.Image]:
    """The whole picture for the tokenizer and for the autoencoder, squashed to their squares (bicubic)."""
    return tuple(image.resize((size, size), Image.Resampling.BICUBIC) for size in (tokenizer_px, autoencoder_px))


def fit_centre_crop(image: Image.Image, tokenizer_px: int, autoencoder_px: int) -> tuple[Image.Image, Image.Image]:
    """The central square, resized for the autoencoder (Lanczos); the tokenizer gets the same and resizes it itself."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = image.crop((left, top, left + side, top + side))
    square = square.resize((autoencoder_px, autoencoder_px), Image.Resampling.LANCZOS)
    return square, square


FITS = {"released": fit_released, "centre_crop": fit_centre_crop}


def _pixels(image: Image.Image) -> torch.Tensor:
    """`[3, H, W]` in [0, 1] of an RGB image."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


class _OtherOriginError(Exception):
    """A file of encoded pictures that does not hold what is wanted: says why."""


def _read(file: Path, origin: Mapping[str, str]) -> EncodedPictures:
    try:
        with safe_open(file, framework="pt") as opened:
            found = opened.metadata() or {}
            other = [name for name, value in origin.items() if found.get(name) != value]
            if other:
                what = "of an older version" if "format" in other else f"made with other {' and '.join(other)}"
                raise _OtherOriginError(f"it is {what}")
            encoded = EncodedPictures(opened.get_tensor("tokens"), opened.get_tensor("latents"))
    except (SafetensorError, OSError) as error:
        raise _OtherOriginError(f"it cannot be read ({error})") from error
    if found.get("values") != encoded.digest():
        raise _OtherOriginError("it is damaged")
    return encoded


def _encoders(policy: BLIP3oNext) -> str:
    """SHA-256 of the configurations and the weights of tokenizer and autoencoder."""
    configs = [policy.diffusion_configs, getattr(policy.config, "vision_tower_config", None)]
    weights = _digest(policy.vision.state_dict()) + _digest(policy.vae.state_dict())
    return hashlib.sha256((json.dumps(configs, sort_keys=True) + weights).encode()).hexdigest()


def _digest(tensors: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 of names, shapes, dtypes and values."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.detach().contiguous().cpu().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
