"""What detectors find in an image, and the two interfaces behind GenEval scoring: detector and colour classifier."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np


@dataclass(frozen=True)
class Detections:
    """Objects found in one image, in no particular order, before any score threshold of a benchmark."""

    boxes: np.ndarray
    """`[N, 4]` float, x0, y0, x1, y1 in pixels of the image."""
    scores: np.ndarray
    """`[N]` float in [0, 1]."""
    classes: tuple[str, ...]
    """`N` class names, e.g. of COCO."""
    masks: np.ndarray | None = None
    """`[N, H, W]` bool, or None where the detector gives boxes only."""

    def __post_init__(self) -> None:
        count = len(self.classes)
        shapes = [self.boxes.shape == (count, 4), self.scores.shape == (count,)]
        if not all(shapes) or (self.masks is not None and len(self.masks) != count):
            masks = None if self.masks is None else self.masks.shape
            raise ValueError(
                f"{count} classes do not fit boxes {self.boxes.shape}, scores {self.scores.shape}, masks {masks}"
            )

    def __len__(self) -> int:
        return len(self.classes)


@runtime_checkable
class Detector(Protocol):
    """Finds objects. Models load in `__init__`, never at import."""

    class_names: tuple[str, ...]
    """Every class it can find; a prompt that asks for another one is refused before training."""

    def __call__(self, images: Sequence[np.ndarray]) -> list[Detections]:
        """One result per `[H, W, 3]` uint8 RGB image."""
        ...


@runtime_checkable
class ColorClassifier(Protocol):
    """Names the colour of detected objects. Models load in `__init__`, never at import."""

    color_names: tuple[str, ...]
    """Every colour it can answer."""

    def __call__(self, image: np.ndarray, detections: Detections, indices: Sequence[int]) -> list[str]:
        """Colour names of the objects `indices` of one `[H, W, 3]` uint8 RGB image."""
        ...
