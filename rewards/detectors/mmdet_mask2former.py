"""Mask2Former Swin-S in mmdet: the detector of the official GenEval evaluation."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from blip3o_grpo.rewards.detectors.coco import GENEVAL_NAMES
from blip3o_grpo.rewards.detectors.detections import Detections
from blip3o_grpo.rewards.detectors.image_sides import IMAGE_SIDES, check_image_sides
from blip3o_grpo.rewards.detectors.mmcv_standin import ensure_mmcv_operators
from blip3o_grpo.rewards.images import as_rgb
from blip3o_grpo.rewards.torch_device import check_device, require_device
from blip3o_grpo.rewards.types import RewardError

CONFIG = ".mim/configs/mask2former/mask2former_swin-s-p4-w7-224_8xb2-lsj-50e_coco.py"
"""The model's configuration, inside mmdet's package."""


class MMDetMask2Former:
    """Instance segmentation with mmdet's own code, configuration, pre- and post-processing.

    Images go to mmdet as BGR arrays, as it would have read them from a file; nothing is compressed. Each image gives
    the 100 best pairs of object query and class.

    Args:
        checkpoint: .pth file with mmdet's weights.
        device: `cpu`, `cuda` or `cuda:N`; a GPU needs full mmcv, because mmcv-lite has no CUDA operators.
        image_sides: an image is scaled to fit within these longer and shorter sides (px), its aspect ratio kept.
            The default is the official one; smaller is faster and less accurate.

    Raises:
        RewardError: mmdet or mmcv is missing, the checkpoint is missing or of another model, or the device cannot be
            used.
    """

    class_names = GENEVAL_NAMES

    def __init__(self, checkpoint: str, device: str = "cpu", image_sides: Sequence[int] = IMAGE_SIDES) -> None:
        self.check_options(checkpoint, device, image_sides)
        if importlib.util.find_spec("mmdet") is None:
            raise RewardError("detector 'mmdet' needs the package mmdet, which is not installed; see docs/detectors.md")
        full_mmcv = ensure_mmcv_operators()
        if device != "cpu" and not full_mmcv:
            raise RewardError(f"detector 'mmdet' on {device!r} needs full mmcv, not mmcv-lite; see docs/detectors.md")
        require_device(device)
        self._model = _load_model(checkpoint, device, tuple(image_sides))

    @staticmethod
    def check_options(checkpoint: str, device: str = "cpu", image_sides: Sequence[int] = IMAGE_SIDES) -> None:
        """Check option values without loading anything; raises RewardError."""
        check_device(device)
        check_image_sides(image_sides)
        if not Path(checkpoint).expanduser().is_file():
            raise RewardError(f"checkpoint {checkpoint!r} does not exist; docs/detectors.md says where to get it")

    def __call__(self, images: Sequence[np.ndarray]) -> list[Detections]:
        """One result per image, with masks; an image is anything `blip3o_grpo.rewards.images.as_rgb` takes."""
        from mmdet.apis import inference_detector

        pictures = [np.ascontiguousarray(as_rgb(image)[:, :, ::-1]) for image in images]
        return [_detections(found.pred_instances) for found in inference_detector(self._model, pictures)]


def _load_model(checkpoint: str, device: str, image_sides: tuple[int, ...]) -> Any:
    import mmdet
    from mmdet.apis import init_detector
    from mmengine.config import Config

    from blip3o_grpo.rewards.detectors.mask2former_weights import load_mmdet_weights

    config = Config.fromfile(Path(mmdet.__file__).parent / CONFIG)
    for step in config.test_dataloader.dataset.pipeline:
        if step.type == "Resize":
            step.scale = image_sides
    with warnings.catch_warnings():  # about weights that are loaded next, and filters set for the whole process
        warnings.simplefilter("ignore")
        model = init_detector(config, None, device=device)
    try:
        model.load_state_dict(load_mmdet_weights(checkpoint))
    except RuntimeError as error:
        names = " ".join(str(error).split())[:200]
        raise RewardError(f"checkpoint {checkpoint!r} does not fit Mask2Former Swin-S: {names}") from error
    return model


def _detections(found: Any) -> Detections:
    return Detections(
        boxes=found.bboxes.cpu().numpy(),
        scores=found.scores.cpu().numpy(),
        classes=tuple(GENEVAL_NAMES[label] for label in found.labels.tolist()),
        masks=found.masks.cpu().numpy(),
    )
