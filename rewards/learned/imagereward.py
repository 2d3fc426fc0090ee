"""`imagereward`: ImageReward, how people rate an image of a prompt. Through transformers' BLIP."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PIL import Image

from blip3o_grpo.rewards.images import as_rgb
from blip3o_grpo.rewards.learned.blip import load_blip
from blip3o_grpo.rewards.learned.head import score_head
from blip3o_grpo.rewards.learned.weights import find_file, find_folder, load_tensors
from blip3o_grpo.rewards.torch_device import check_device, check_dtype, require_device
from blip3o_grpo.rewards.types import RewardBatch, RewardError

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS = "THUDM/ImageReward"
FILE = "ImageReward.pt"
TOKENIZER = "google-bert/bert-base-uncased"
MEAN, DEVIATION = 0.16717362830052426, 1.0333394966054072
"""Of raw scores over the authors' data; what is returned is standardised by them."""
MAX_TOKENS = 35
BATCH = 32
"""Most images scored at once."""
_WEIGHTS, _TOKENIZER = "imagereward: weights", "imagereward: tokenizer"
_TOKENIZER_FILES = (("tokenizer.json", "vocab.txt"),)


class ImageReward:
    """BLIP's text encoder reads the prompt while it attends to the image; a head makes a score of its first token.

    Xu et al. 2023, https://arxiv.org/abs/2304.05977, https://github.com/THUDM/ImageReward: ViT-L/16, BERT with
    cross-attention, five linear layers, (raw - 0.167) / 1.033. Scores are standardised: mostly -2 to 2, unbounded.

    Args:
        weights: a file, or `ORG/NAME` on the hub that holds `ImageReward.pt`, in the local cache.
        tokenizer: a folder with BERT's uncased vocabulary, or `ORG/NAME` on the hub, in the local cache.
        device: `cpu`, `cuda` or `cuda:N`.
        dtype: `float32` or `bfloat16`, of the encoders; the head computes in float32.

    Raises:
        RewardError: weights that are not on this machine or do not fit, or a device that cannot be used.
    """

    def __init__(
        self, weights: str = WEIGHTS, tokenizer: str = TOKENIZER, device: str = "cpu", dtype: str = "float32"
    ) -> None:
        self.check_options(weights, tokenizer, device, dtype)
        require_device(device)
        import torch
        from transformers import BertTokenizer

        tensors = load_tensors(find_file(weights, FILE, _WEIGHTS), _WEIGHTS)
        strange = [name for name in tensors if not name.startswith(("blip.", "mlp."))]
        if strange:
            raise RewardError(f"{_WEIGHTS}: {weights!r} holds {strange[0]!r}, so it is no ImageReward")
        vision, text = load_blip(_below("blip.", tensors), _WEIGHTS)
        self._head = score_head(_below("mlp.", tensors), text.config.hidden_size, _WEIGHTS).to(device)
        self._device, self._dtype = device, getattr(torch, dtype)
        self._vision, self._text = (model.to(device, self._dtype) for model in (vision, text))
        self._prepare = _preparation(vision.config.image_size)
        folder = find_folder(tokenizer, _TOKENIZER_FILES, _TOKENIZER)
        self._tokenizer = BertTokenizer.from_pretrained(folder, local_files_only=True)
        if len(self._tokenizer) > text.config.vocab_size:
            raise RewardError(
                f"{_TOKENIZER}: {tokenizer!r} has {len(self._tokenizer)} tokens, and {weights!r} knows "
                f"{text.config.vocab_size}"
            )

    @staticmethod
    def check_options(
        weights: str = WEIGHTS, tokenizer: str = TOKENIZER, device: str = "cpu", dtype: str = "float32"
    ) -> None:
        """Check option values and that the weights are there, without loading them; raises RewardError."""
        check_device(device)
        check_dtype(dtype)
        find_file(weights, FILE, _WEIGHTS)
        find_folder(tokenizer, _TOKENIZER_FILES, _TOKENIZER)

    def __call__(self, batch: RewardBatch) -> list[float | None]:
        """One score per image; a prompt beyond 35 tokens is cut off, as the authors do."""
        scores: list[float | None] = []
        for start in range(0, len(batch), BATCH):
            scores += self._score(batch[start : start + BATCH])
        return scores

    def _score(self, batch: RewardBatch) -> list[float]:
        import torch

        pixels = torch.stack([self._prepare(Image.fromarray(as_rgb(image))) for image in batch.images])
        tokens = self._tokenizer(
            list(batch.prompts), padding="max_length", truncation=True, max_length=MAX_TOKENS, return_tensors="pt"
        ).to(self._device)
        with torch.inference_mode():
            patches = self._vision(pixels.to(self._device, self._dtype)).last_hidden_state
            read = self._text(tokens.input_ids, tokens.attention_mask, encoder_hidden_states=patches)
            raw = self._head(read.last_hidden_state[:, 0].float()).squeeze(-1)
        return ((raw - MEAN) / DEVIATION).tolist()


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _preparation(side: int):
    """What makes `[3, side, side]` of a PIL image: shorter side scaled to `side`, the middle cut out, CLIP's mean."""
    from open_clip import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
    from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Normalize, Resize, ToTensor

    return Compose(
        [
            Resize(side, InterpolationMode.BICUBIC),
            CenterCrop(side),
            ToTensor(),
            Normalize(OPENAI_DATASET_MEAN, OPENAI_DATASET_STD),
        ]
    )
