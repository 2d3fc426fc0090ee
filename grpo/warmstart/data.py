"""Images with captions for a warm start: read, checked, and encoded once into tokens and latents."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.progress import track
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from blip3o_grpo.configs.schema import WarmstartConfig
from blip3o_grpo.policies.blip3o_next.policy import BLIP3oNext
from blip3o_grpo.policies.blip3o_next.prompt_encoder import unusable_character
from blip3o_grpo.rewards.images import open_rgb


class WarmstartDataError(ValueError):
    """Images or captions that cannot be used: names file and line."""


@dataclass(frozen=True)
class WarmstartData:
    """Everything a batch is drawn from."""

    captions: list[str]
    prompt_ids: list[list[int]]  # ends in <im_start><S0>
    tokens: torch.Tensor  # [N, T] int32, 0-based codes
    latents: torch.Tensor  # [N, C, h, w], scaled by the autoencoder's factor

    @staticmethod
    def read_captions(config: WarmstartConfig) -> list[tuple[Path, str]]:
        """Image files and captions, checked without loading a model.

        Raises:
            WarmstartDataError: unreadable or empty captions file, a line without the keys, a name that leads out of
                the folder of images, a missing image.
        """
        file, folder = Path(config.captions), Path(config.images)
        try:
            lines = file.read_text(encoding="utf-8-sig").split("\n")
        except FileNotFoundError as error:
            raise WarmstartDataError(f"captions: {file} does not exist") from error
        except OSError as error:
            raise WarmstartDataError(f"captions: {file} cannot be read ({error.strerror})") from error
        except UnicodeDecodeError as error:
            raise WarmstartDataError(f"captions: {file} is not UTF-8 (byte {error.start})") from error
        pairs = []
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
                name, text = record["file_name"], record["text"]
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise WarmstartDataError(
                    f"{file}:{number}: each line must be a JSON object with `file_name` and `text` ({error!r:.200})"
                ) from error
            for key, value in (("file_name", name), ("text", text)):
                if not isinstance(value, str) or not value.strip() or unusable_character(value):
                    raise WarmstartDataError(f"{file}:{number}: `{key}` is {value!r:.100}; it must be printable text")
            if Path(name).is_absolute() or ".." in Path(name).parts:
                raise WarmstartDataError(f"{file}:{number}: {name!r} leads out of the folder of images, {folder}")
            pairs.append((folder / name, text))
        if not pairs:
            raise WarmstartDataError(f"captions: {file} is empty")
        missing = next((path for path, _ in pairs if not path.is_file()), None)
        if missing:
            raise WarmstartDataError(f"{file}: names {missing}, which does not exist")
        return pairs

    @classmethod
    def encode(cls, policy: BLIP3oNext, pairs: list[tuple[Path, str]], cache: Path, console: Console) -> WarmstartData:
        """Tokens by VQ-SigLIP2 and latents by DC-AE for every image, centre-cropped to a square.

        Args:
            cache: safetensors file; written once, read by later calls for the same images.
        """
        captions = [text for _, text in pairs]
        prompt_ids = [policy.prompts.encode(text) for text in captions]
        if cache.is_file():
            try:
                encoded = load_file(cache)
            except SafetensorError as error:
                raise WarmstartDataError(
                    f"{cache}: cannot be read ({error}); delete it, and it is made again"
                ) from error
            return cls(captions, prompt_ids, encoded["tokens"], encoded["latents"])
        tokens, latents = [], []
        size = policy.sana.config.sample_size * policy.vae.spatial_compression_ratio
        batches = [pairs[i : i + 128] for i in range(0, len(pairs), 128)]
        for batch in track(batches, "encoding images", console=console):
            images = torch.stack([read_image(path, size) for path, _ in batch])
            with torch.no_grad():
                tokens.append(policy.vision.encode(images).int())
                latent = policy.vae.encode(images * 2 - 1).latent
                shift = getattr(policy.vae.config, "shift_factor", 0.0)
                latents.append((latent - shift) * policy.vae.config.scaling_factor)
        encoded = {"tokens": torch.cat(tokens), "latents": torch.cat(latents)}
        partial = cache.with_suffix(".partial")
        save_file(encoded, partial)
        os.replace(partial, cache)
        return cls(captions, prompt_ids, **encoded)


def read_image(path: Path, size: int) -> torch.Tensor:
    """RGB image `[3, size, size]` in [0, 1], centre-cropped to a square and resized.

    Raises:
        ImageFileError: not an image, or too large a one.
    """
    image = open_rgb(path)
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    image = image.crop((left, top, left + side, top + side)).resize((size, size), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
