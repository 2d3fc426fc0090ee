"""A CLIP model through open_clip, from weights that are already on this machine; nothing is ever downloaded here."""

from __future__ import annotations

import difflib
import importlib.util
import os
import pickle
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from blip3o_grpo.rewards.torch_device import check_device, check_dtype, require_device
from blip3o_grpo.rewards.types import RewardError

if TYPE_CHECKING:
    from torch import Tensor

BATCH = 32
"""Most images encoded at once."""


class ClipModel:
    """Image and text encoder; embeddings are float32 whatever it computes in.

    Args:
        model: open_clip's name of the architecture, e.g. `ViT-L-14`.
        pretrained: open_clip's tag of published weights (e.g. `openai`), which must lie in Hugging Face's cache, or a
            file of weights. OpenAI's weights need QuickGELU: the tag switches it on, and for a file the model must be
            named accordingly, e.g. `ViT-L-14-quickgelu`.
        device: `cpu`, `cuda` or `cuda:N`.
        dtype: `float32` or `bfloat16`, of weights and computation.

    Raises:
        RewardError: open_clip is missing, the model or tag is unknown, the weights are not on this machine or do not
            fit, or the device cannot be used.
    """

    def __init__(self, model: str, pretrained: str, device: str = "cpu", dtype: str = "float32") -> None:
        check_dtype(dtype)
        if importlib.util.find_spec("open_clip") is None:
            raise RewardError("CLIP needs the package open_clip_torch, which is not installed")
        require_device(device)
        import open_clip
        import torch

        weights, settings = _find_weights(model, pretrained)
        precision = "fp32" if dtype == "float32" else "bf16"  # of the latter, norms compute in float32
        try:
            self._model, _, self._transform = open_clip.create_model_and_transforms(
                model, pretrained=str(weights), precision=precision, device=device, **settings
            )
        except (RuntimeError, KeyError, pickle.UnpicklingError) as error:
            reason = " ".join(str(error).split())[:200]
            raise RewardError(f"CLIP weights {str(weights)!r} do not fit model {model!r}: {reason}") from error
        self._model.eval()
        self._tokenize = open_clip.get_tokenizer(model)
        self._device, self._dtype = device, getattr(torch, dtype)

    @staticmethod
    def check_options(model: str, pretrained: str, device: str = "cpu", dtype: str = "float32") -> None:
        """Check the names, and that the weights are on this machine, without loading them; raises RewardError.

        Without open_clip, which may be installed for the workers only, no name can be checked.
        """
        check_device(device)
        check_dtype(dtype)
        if importlib.util.find_spec("open_clip") is not None:
            _find_weights(model, pretrained)
        elif _is_path(pretrained) and not Path(pretrained).expanduser().is_file():
            raise RewardError(f"CLIP weights {pretrained!r} do not exist")

    @property
    def image_side(self) -> int:
        """Height and width of what the image encoder sees (px)."""
        size = self._model.visual.image_size
        return size if isinstance(size, int) else size[0]

    def encode_images(
        self,
        images: Sequence[Image.Image | np.ndarray],
        prepare: Callable[[Image.Image], Tensor] | None = None,
    ) -> Tensor:
        """Embeddings `[N, D]` of unit length.

        Args:
            images: PIL images or `[H, W, 3]` uint8 RGB arrays of any sizes.
            prepare: makes of each what the encoder sees, `[3, image_side, image_side]`; None: open_clip's own way.
        """
        import torch
        from torch.nn.functional import normalize

        parts, prepare = [], prepare or self._transform
        for start in range(0, len(images), BATCH):
            pictures = [
                prepare(image if isinstance(image, Image.Image) else Image.fromarray(image))
                for image in images[start : start + BATCH]
            ]
            with torch.inference_mode():
                pixels = torch.stack(pictures).to(self._device, self._dtype)
                parts.append(normalize(self._model.encode_image(pixels).float(), dim=-1))
        return torch.cat(parts)

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Embeddings `[N, D]` of unit length; a text beyond the model's context (77 tokens) is cut off."""
        import torch
        from torch.nn.functional import normalize

        with torch.inference_mode():
            return normalize(self._model.encode_text(self._tokenize(list(texts)).to(self._device)).float(), dim=-1)

    def cosines(
        self,
        images: Sequence[Image.Image | np.ndarray],
        texts: Sequence[str],
        prepare: Callable[[Image.Image], Tensor] | None = None,
    ) -> Tensor:
        """Cosine `[N]` of every image and its text, in [-1, 1]; equal texts are encoded once.

        Args:
            images: N of them, at least one, and `prepare`, as for `encode_images`.
            texts: N of them.
        """
        distinct = list(dict.fromkeys(texts))
        rows = [distinct.index(text) for text in texts]
        return (self.encode_images(images, prepare) * self.encode_texts(distinct)[rows]).sum(dim=-1)


def _find_weights(model: str, pretrained: str) -> tuple[Path, dict[str, Any]]:
    """The file of weights, and what open_clip must know about it that the file does not say."""
    import open_clip

    if model not in open_clip.list_models():
        near = difflib.get_close_matches(model, open_clip.list_models(), n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else "open_clip.list_models() names them all"
        raise RewardError(f"unknown CLIP model {model!r}; {hint}")
    path = Path(pretrained).expanduser()
    if path.is_file():
        return path, {}
    tags = open_clip.list_pretrained_tags_by_model(model)
    if pretrained not in tags:
        if _is_path(pretrained):
            raise RewardError(f"CLIP weights {pretrained!r} do not exist")
        near = difflib.get_close_matches(pretrained, tags, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"open_clip knows {', '.join(tags) or 'none'}"
        raise RewardError(f"{pretrained!r} is neither a file nor a tag of CLIP model {model!r}; {hint}")
    published = open_clip.get_pretrained_cfg(model, pretrained)
    cached = _cached(published)
    if cached is None:
        raise RewardError(
            f"the weights of CLIP {model!r}, {pretrained!r} are not on this machine; fetch them once with: "
            f"python -c \"import open_clip; open_clip.create_model('{model}', pretrained='{pretrained}')\" "
            f"(or set pretrained to a file of weights)"
        )
    settings = {
        f"image_{key}": published[key] for key in ("mean", "std", "interpolation", "resize_mode") if key in published
    }
    return cached, settings | {"force_quick_gelu": published.get("quick_gelu", False)}


def _is_path(pretrained: str) -> bool:
    return os.sep in pretrained or bool(Path(pretrained).suffix)


def _cached(published: Mapping[str, Any]) -> Path | None:
    """Where Hugging Face's cache holds published weights, in the order open_clip prefers its files."""
    from huggingface_hub import try_to_load_from_cache

    repository, name = os.path.split(published.get("hf_hub", ""))
    names = [name] if name else ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"]
    for candidate in names:
        found = try_to_load_from_cache(repository, candidate) if repository else None
        if isinstance(found, str):
            return Path(found)
    return None
