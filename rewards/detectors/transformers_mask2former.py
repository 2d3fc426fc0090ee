"""Mask2Former Swin-S in transformers: the same detections as mmdet's, without mmdet and mmcv.

Pre- and post-processing follow mmdet 3.3 (`Resize`, `DetDataPreprocessor`, `MaskFormerFusionHead`), not transformers'
own image processor, which resizes and selects differently.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from blip3o_grpo.rewards.detectors.coco import GENEVAL_NAMES
from blip3o_grpo.rewards.detectors.detections import Detections
from blip3o_grpo.rewards.detectors.image_sides import IMAGE_SIDES, check_image_sides
from blip3o_grpo.rewards.images import as_rgb
from blip3o_grpo.rewards.torch_device import check_device, require_device
from blip3o_grpo.rewards.types import RewardError

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import Mask2FormerConfig

MEAN = np.array([123.675, 116.28, 103.53], np.float32)
STD = np.array([58.395, 57.12, 57.375], np.float32)
"""Of RGB in 0 to 255, as the weights were trained."""
PADDING_DIVISOR = 32
"""Both sides are padded to multiples of this, with zeros after normalisation, at the right and the bottom."""
NUM_DETECTIONS = 100


class TransformersMask2Former:
    """Instance segmentation by `Mask2FormerForUniversalSegmentation`; images go through it one by one.

    Args:
        folder: a model folder that `scripts/convert_mmdet_mask2former.py` wrote, or any other transformers
            Mask2Former with COCO's 80 classes.
        device: `cpu`, `cuda` or `cuda:N`.
        image_sides: an image is scaled to fit within these longer and shorter sides (px), its aspect ratio kept.
            The default is the official one; smaller is faster and less accurate.

    Raises:
        RewardError: the folder is missing or holds another model, or the device cannot be used.
    """

    class_names = GENEVAL_NAMES

    def __init__(self, folder: str, device: str = "cpu", image_sides: Sequence[int] = IMAGE_SIDES) -> None:
        self.check_options(folder, device, image_sides)
        require_device(device)
        from transformers import Mask2FormerForUniversalSegmentation

        model = Mask2FormerForUniversalSegmentation.from_pretrained(Path(folder).expanduser(), local_files_only=True)
        if model.config.num_labels != len(GENEVAL_NAMES):
            raise RewardError(f"model {folder!r} has {model.config.num_labels} classes instead of COCO's 80")
        self._model = model.eval().to(device)
        self._image_sides = tuple(image_sides)

    @staticmethod
    def check_options(folder: str, device: str = "cpu", image_sides: Sequence[int] = IMAGE_SIDES) -> None:
        """Check option values without loading anything; raises RewardError."""
        check_device(device)
        check_image_sides(image_sides)
        path = Path(folder).expanduser()
        has_weights = any(path.glob("*.safetensors")) or any(path.glob("*.bin"))
        if not has_weights or not (path / "config.json").is_file():
            missing = "no weights" if (path / "config.json").is_file() else "no config.json"
            raise RewardError(f"{folder!r} is no model folder ({missing}); docs/detectors.md says how to make it")

    def __call__(self, images: Sequence[np.ndarray]) -> list[Detections]:
        """One result per image, with masks; an image is anything `blip3o_grpo.rewards.images.as_rgb` takes."""
        return [self._detect(as_rgb(image)) for image in images]

    def _detect(self, image: np.ndarray) -> Detections:
        import torch

        pixels, size = preprocess(image, self._image_sides)
        with torch.inference_mode():
            output = self._model(pixel_values=torch.from_numpy(pixels).to(self._model.device))
            return postprocess(
                output.class_queries_logits[0], output.masks_queries_logits[0], pixels.shape[2:], size, image.shape[:2]
            )


def swin_small_config() -> Mask2FormerConfig:
    """Configuration of the network GenEval uses: Swin-S backbone, 100 queries, COCO's 80 classes."""
    from transformers import Mask2FormerConfig, SwinConfig

    backbone = SwinConfig(
        depths=[2, 2, 18, 2],
        num_heads=[3, 6, 12, 24],
        embed_dim=96,
        window_size=7,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    names = dict(enumerate(GENEVAL_NAMES))
    return Mask2FormerConfig(
        backbone_config=backbone,
        num_queries=100,
        id2label=names,
        label2id={name: index for index, name in names.items()},
    )


def preprocess(image: np.ndarray, image_sides: tuple[int, ...]) -> tuple[np.ndarray, tuple[int, int]]:
    """Scale, normalise and pad.

    Args:
        image: `[H, W, 3]` uint8 RGB.
        image_sides: longer and shorter side (px) to fit into.

    Returns:
        `[1, 3, H', W']` float32, and the height and width of the scaled image without its padding.
    """
    height, width = image.shape[:2]
    scale = min(image_sides[0] / max(height, width), image_sides[1] / min(height, width))
    size = (int(height * scale + 0.5), int(width * scale + 0.5))
    scaled = cv2.resize(image.astype(np.float32), size[::-1], interpolation=cv2.INTER_LINEAR)
    padded_sides = (-(-side // PADDING_DIVISOR) * PADDING_DIVISOR for side in size)
    pixels = np.zeros((1, 3, *padded_sides), np.float32)
    pixels[0, :, : size[0], : size[1]] = ((scaled - MEAN) / STD).transpose(2, 0, 1)
    return pixels, size


def postprocess(
    class_logits: Tensor,
    mask_logits: Tensor,
    padded_size: tuple[int, int],
    size: tuple[int, int],
    image_size: tuple[int, int],
) -> Detections:
    """Turn one image's network output into its best detections, as mmdet's instance post-processing does.

    The score of a detection is its class probability times the mean probability of the pixels inside its mask.

    Args:
        class_logits: `[queries, classes + 1]`, "no object" last.
        mask_logits: `[queries, h, w]`.
        padded_size, size, image_size: height and width of the network's input, of its part that is not padding, and of
            the image to answer for.
    """
    import torch
    from torch.nn import functional

    probabilities = class_logits.softmax(dim=-1)[:, :-1]
    num_classes = probabilities.shape[1]
    scores, chosen = probabilities.flatten().topk(min(NUM_DETECTIONS, probabilities.numel()))
    masks = functional.interpolate(mask_logits[None], padded_size, mode="bilinear", align_corners=False)
    masks = masks[:, :, : size[0], : size[1]]
    masks = functional.interpolate(masks, image_size, mode="bilinear", align_corners=False)[0]
    inside = masks > 0
    mask_scores = (masks.sigmoid() * inside).sum(dim=(1, 2)) / (inside.sum(dim=(1, 2)) + 1e-6)
    queries = torch.div(chosen, num_classes, rounding_mode="floor")
    bitmaps = inside.cpu().numpy()
    boxes = np.stack([_box(bitmap) for bitmap in bitmaps])
    queries_on_cpu = queries.cpu().numpy()
    return Detections(
        boxes=boxes[queries_on_cpu],
        scores=(scores * mask_scores[queries]).cpu().numpy(),
        classes=tuple(GENEVAL_NAMES[label] for label in (chosen % num_classes).tolist()),
        masks=bitmaps[queries_on_cpu],
    )


def _box(bitmap: np.ndarray) -> np.ndarray:
    """Tight box around a `[H, W]` mask, its right and lower edges exclusive; zeros around an empty one."""
    columns, rows = np.flatnonzero(bitmap.any(axis=0)), np.flatnonzero(bitmap.any(axis=1))
    if not len(columns):
        return np.zeros(4, np.float32)
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float32)
