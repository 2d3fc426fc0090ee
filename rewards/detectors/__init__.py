"""Object detectors by name; a detector's own libraries load when one is built, not before.

    mmdet         Mask2Former in mmdet, as GenEval evaluates     masks   checkpoint .pth
    transformers  the same network in transformers               masks   converted folder
    ssd           SSD-MobileNetV2 in OpenCV, small and fast      boxes   optional package
    shapes        the tiny world's shapes, without a network     masks   nothing

How each is installed: docs/detectors.md.
"""

from __future__ import annotations

import difflib
import importlib
from typing import Any

from blip3o_grpo.rewards.detectors.detections import Detector
from blip3o_grpo.rewards.spec import check_options
from blip3o_grpo.rewards.types import RewardError

DETECTORS = {
    "mmdet": "blip3o_grpo.rewards.detectors.mmdet_mask2former:MMDetMask2Former",
    "transformers": "blip3o_grpo.rewards.detectors.transformers_mask2former:TransformersMask2Former",
    "ssd": "blip3o_grpo.rewards.detectors.ssd:SSDDetector",
    "shapes": "blip3o_grpo.rewards.detectors.shapes:ShapeDetector",
}
"""Name to `module:Class`."""


def detector_class(name: str) -> type:
    """The class behind a name; its `class_names` can be read without building it.

    Raises:
        RewardError: unknown name, with the nearest known one.
    """
    if name not in DETECTORS:
        near = difflib.get_close_matches(name, DETECTORS, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known detectors: {', '.join(DETECTORS)}"
        raise RewardError(f"unknown detector {name!r}; {hint}")
    module_name, _, attribute = DETECTORS[name].partition(":")
    return getattr(importlib.import_module(module_name), attribute)


def build_detector(name: str, **options: Any) -> Detector:
    """Construct a detector; this is where its model loads.

    Args:
        name: a key of `DETECTORS`.
        options: keyword arguments of its constructor.

    Raises:
        RewardError: as `check_detector`, or its libraries are missing, or its weights do not fit.
    """
    check_detector(name, **options)
    return detector_class(name)(**options)


def check_detector(name: str, **options: Any) -> None:
    """Check what can be known of a detector without its libraries: they may be installed for its workers only.

    Raises:
        RewardError: unknown name, an option the constructor does not know, or a value or file it cannot use.
    """
    check_options(detector_class(name), options, f"detector {name}")
