"""`pickscore`: PickScore, which of a prompt's images people pick. Through transformers' CLIP."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from blip3o_grpo.rewards.images import as_rgb
from blip3o_grpo.rewards.learned.weights import find_folder
from blip3o_grpo.rewards.torch_device import check_device, check_dtype, require_device
from blip3o_grpo.rewards.types import RewardBatch, RewardError

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS = "yuvalkirstain/PickScore_v1"
PROCESSOR = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"
BATCH = 32
"""Most images encoded at once."""
_MODEL_FILES = (("config.json",), ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"))
_PROCESSOR_FILES = (("preprocessor_config.json",), ("tokenizer.json", "vocab.json"))


class PickScore:
    """exp(logit_scale) x cosine of prompt and image, in a CLIP ViT-H/14 that was fine-tuned on people's picks.

    Kirstain et al. 2023, https://arxiv.org/abs/2305.01569, https://github.com/yuvalkirstain/PickScore. The scale, which
    the weights hold, bounds the scores on both sides.

    Args:
        weights: a folder, or `ORG/NAME` on the hub, in the local cache, of a transformers `CLIPModel`.
        processor: likewise, of its tokenizer and image processor.
        device: `cpu`, `cuda` or `cuda:N`.
        dtype: `float32` or `bfloat16`, of the encoders; cosine and scale are float32.

    Raises:
        RewardError: weights that are not on this machine, are incomplete or do not fit the processor, or a device that
            cannot be used.
    """

    def __init__(
        self, weights: str = WEIGHTS, processor: str = PROCESSOR, device: str = "cpu", dtype: str = "float32"
    ) -> None:
        self.check_options(weights, processor, device, dtype)
        require_device(device)
        import torch

        self._device, self._dtype = device, getattr(torch, dtype)
        self._load(weights, processor)

    def _load(self, weights: str, processor: str) -> None:
        from transformers import CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

        folder = find_folder(weights, _MODEL_FILES, "pickscore: weights")
        beside = find_folder(processor, _PROCESSOR_FILES, "pickscore: processor")
        try:
            model, report = CLIPModel.from_pretrained(
                folder, local_files_only=True, dtype="float32", output_loading_info=True
            )
            self._image_processor = CLIPImageProcessorPil.from_pretrained(beside, local_files_only=True)
            self._tokenizer = CLIPTokenizer.from_pretrained(beside, local_files_only=True)
        except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:  # whatever does not fit
            reason = " ".join(str(error).split())[:200]
            raise RewardError(f"pickscore: {weights!r} with {processor!r} cannot be loaded: {reason}") from error
        if report["missing_keys"]:  # transformers would draw them at random
            raise RewardError(f"pickscore: weights {weights!r} lack {sorted(report['missing_keys'])[0]}")
        side, wanted = self._image_processor.crop_size["height"], model.config.vision_config.image_size
        if side != wanted:
            raise RewardError(f"pickscore: {processor!r} makes images of {side} px, and {weights!r} reads {wanted} px")
        self._max_tokens = model.config.text_config.max_position_embeddings
        self._scale = model.logit_scale.exp().item()  # before bfloat16 rounds it
        self._model = model.to(self._device, self._dtype).eval()

    @staticmethod
    def check_options(
        weights: str = WEIGHTS, processor: str = PROCESSOR, device: str = "cpu", dtype: str = "float32"
    ) -> None:
        """Check option values and that the weights are there, without loading them; raises RewardError."""
        check_device(device)
        check_dtype(dtype)
        find_folder(weights, _MODEL_FILES, "pickscore: weights")
        find_folder(processor, _PROCESSOR_FILES, "pickscore: processor")

    def __call__(self, batch: RewardBatch) -> list[float | None]:
        """One score per image; equal prompts are encoded once, up to 77 tokens."""
        if not len(batch):
            return []
        prompts = list(dict.fromkeys(batch.prompts))
        texts = self._encode_texts(prompts)[[prompts.index(prompt) for prompt in batch.prompts]]
        images = self._encode_images([as_rgb(image) for image in batch.images])
        return (self._scale * (images * texts).sum(dim=-1)).tolist()

    def _encode_texts(self, texts: Sequence[str]) -> Tensor:
        """`[N, D]` float32 of unit length."""
        import torch

        tokens = self._tokenizer(
            list(texts), padding=True, truncation=True, max_length=self._max_tokens, return_tensors="pt"
        )
        with torch.inference_mode():
            found = self._model.get_text_features(**tokens.to(self._device)).pooler_output
        return torch.nn.functional.normalize(found.float(), dim=-1)

    def _encode_images(self, images: Sequence[np.ndarray]) -> Tensor:
        """`[N, D]` float32 of unit length."""
        import torch

        parts = []
        for start in range(0, len(images), BATCH):
            pictures = [Image.fromarray(image) for image in images[start : start + BATCH]]
            pixels = self._image_processor(pictures, return_tensors="pt")["pixel_values"]
            with torch.inference_mode():
                found = self._model.get_image_features(pixels.to(self._device, self._dtype)).pooler_output
            parts.append(torch.nn.functional.normalize(found.float(), dim=-1))
        return torch.cat(parts)
