"""Colour classifiers for detected objects: CLIP as in GenEval's official evaluation, and plain colour distance."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from PIL import Image

from blip3o_grpo.rewards.clip.model import ClipModel
from blip3o_grpo.rewards.detectors.detections import ColorClassifier, Detections
from blip3o_grpo.rewards.images import as_rgb
from blip3o_grpo.rewards.spec import check_options
from blip3o_grpo.rewards.torch_device import check_device
from blip3o_grpo.rewards.types import RewardError

if TYPE_CHECKING:
    from torch import Tensor

PROTOTYPES: Mapping[str, tuple[int, int, int]] = {
    "red": (215, 30, 35),
    "orange": (245, 130, 25),
    "yellow": (245, 220, 40),
    "green": (40, 150, 60),
    "blue": (35, 80, 200),
    "purple": (125, 50, 160),
    "pink": (245, 150, 190),
    "brown": (115, 70, 35),
    "black": (20, 20, 20),
    "white": (245, 245, 245),
}
"""GenEval's ten colours, each with a typical RGB value (0 to 255)."""
GENEVAL_COLORS = tuple(PROTOTYPES)
TEMPLATES = ("a photo of a {color} {name}", "a photo of a {color}-colored {name}", "a photo of a {color} object")
SURROUNDINGS = (0x99, 0x99, 0x99)
"""RGB of everything outside an object's mask."""


class ClipColors:
    """GenEval's official colour classifier.

    An object is cut out along its box, with everything outside its mask set to #999 (without a mask, the box as it
    is). Of each colour, three texts with the object's class name are encoded and averaged; the nearest colour wins.

    Args:
        model: open_clip's name of the architecture; the official one by default.
        pretrained: open_clip's tag of weights that are on this machine, or a file; see `rewards.clip.model`.
        device: `cpu`, `cuda` or `cuda:N`.

    Raises:
        RewardError: as `blip3o_grpo.rewards.clip.model.ClipModel`.
    """

    color_names = GENEVAL_COLORS

    def __init__(self, model: str = "ViT-L-14", pretrained: str = "openai", device: str = "cpu") -> None:
        self.check_options(model, pretrained, device)
        self._clip = ClipModel(model, pretrained, device)
        self._text_embeddings: dict[str, Tensor] = {}

    @staticmethod
    def check_options(model: str = "ViT-L-14", pretrained: str = "openai", device: str = "cpu") -> None:
        """Check option values without loading anything; raises RewardError."""
        check_device(device)

    def __call__(self, image: np.ndarray, detections: Detections, indices: Sequence[int]) -> list[str]:
        """Colour names of the objects `indices`; the image is anything `blip3o_grpo.rewards.images.as_rgb` takes."""
        import torch

        if not len(indices):
            return []
        image = as_rgb(image)
        crops = self._clip.encode_images([cut_out(image, detections, index) for index in indices])  # [N, D]
        texts = torch.stack([self._texts(detections.classes[index]) for index in indices])  # [N, colours, D]
        nearest = torch.einsum("nd,ncd->nc", crops, texts).argmax(dim=1)
        return [self.color_names[color] for color in nearest.tolist()]

    def _texts(self, name: str) -> Tensor:
        """`[colours, D]`: of each colour, the mean of its texts' embeddings, at unit length; kept per class name."""
        from torch.nn.functional import normalize

        if name not in self._text_embeddings:
            texts = [template.format(color=color, name=name) for color in self.color_names for template in TEMPLATES]
            encoded = self._clip.encode_texts(texts).unflatten(0, (len(self.color_names), len(TEMPLATES)))
            self._text_embeddings[name] = normalize(encoded.mean(dim=1), dim=-1)
        return self._text_embeddings[name]


def cut_out(image: np.ndarray, detections: Detections, index: int) -> Image.Image:
    """One object of a `[H, W, 3]` uint8 RGB image: its box, at least 1 px each way, outside its mask #999."""
    if detections.masks is not None:
        image = np.where(detections.masks[index][:, :, None], image, np.uint8(SURROUNDINGS))
    x0, y0, x1, y1 = (round(float(edge)) for edge in detections.boxes[index])
    return Image.fromarray(image).crop((x0, y0, max(x1, x0 + 1), max(y1, y0 + 1)))


class NearestColor:
    """Names the colour nearest to that of an object's core, by distance in CIELAB; needs no network.

    The core is the half of the mask's depth that is farthest from its edge, or the middle half of the box where there
    is no mask. Its median colour counts, so a highlight or a sticker does not.

    Args:
        prototypes: colour names with their RGB values (0 to 255); default: GenEval's ten colours.

    Raises:
        RewardError: no colours, or a value that is not three numbers from 0 to 255.
    """

    def __init__(self, prototypes: Mapping[str, Sequence[int]] | None = None) -> None:
        self.check_options(prototypes)
        prototypes = PROTOTYPES if prototypes is None else prototypes
        self.color_names = tuple(prototypes)
        self._lab = _lab(np.array(list(prototypes.values())))  # [colours, 3]

    @staticmethod
    def check_options(prototypes: Mapping[str, Sequence[int]] | None = None) -> None:
        """Check option values; raises RewardError."""
        if prototypes is not None and not prototypes:
            raise RewardError("the colour classifier has no prototypes; give at least one name with its RGB value")
        for name, value in (prototypes or {}).items():
            if len(value) != 3 or not all(0 <= channel <= 255 for channel in value):
                raise RewardError(f"colour {name!r} is {list(value)}; it must be red, green and blue from 0 to 255")

    def __call__(self, image: np.ndarray, detections: Detections, indices: Sequence[int]) -> list[str]:
        """Colour names of the objects `indices`; the image is anything `blip3o_grpo.rewards.images.as_rgb` takes."""
        image = as_rgb(image)
        return [self._nearest(np.median(_core(image, detections, index), axis=0)) for index in indices]

    def _nearest(self, rgb: np.ndarray) -> str:
        distances = np.linalg.norm(self._lab - _lab(rgb[None]), axis=1)
        return self.color_names[int(distances.argmin())]


def _core(image: np.ndarray, detections: Detections, index: int) -> np.ndarray:
    """`[N, 3]` pixels of an object's core, at least one."""
    if detections.masks is not None and detections.masks[index].any():
        mask = np.pad(detections.masks[index].astype(np.uint8), 1)  # an object ends where the image does
        depth = cv2.distanceTransform(mask, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
        return image[depth >= max(depth.max() / 2, 0.5)]
    x0, y0, x1, y1 = detections.boxes[index]
    left, right = _middle_half(x0, x1, image.shape[1])
    top, bottom = _middle_half(y0, y1, image.shape[0])
    return image[top:bottom, left:right].reshape(-1, 3)


def _middle_half(start: float, end: float, limit: int) -> tuple[int, int]:
    """Whole pixels of the middle half of a range, at least one, inside [0, limit)."""
    quarter = (end - start) / 4
    first = min(max(round(float(start + quarter)), 0), limit - 1)
    return first, max(min(round(float(end - quarter)), limit), first + 1)


def _lab(rgb: np.ndarray) -> np.ndarray:
    """CIELAB of `[N, 3]` RGB values from 0 to 255."""
    return cv2.cvtColor((rgb / 255).astype(np.float32)[None], cv2.COLOR_RGB2Lab)[0]


CLASSIFIERS: Mapping[str, type] = {"clip": ClipColors, "nearest": NearestColor}


def build_colors(name: str, **options: Any) -> ColorClassifier:
    """Construct a colour classifier; this is where its model loads.

    Args:
        name: `clip` or `nearest`.
        options: keyword arguments of its constructor.

    Raises:
        RewardError: unknown name, with the nearest known one; an option the constructor does not know or cannot use.
    """
    return _checked_class(name, options)(**options)


def check_colors(name: str, **options: Any) -> None:
    """Check what can be known before a model loads: options, and that CLIP's weights are on this machine.

    Raises:
        RewardError: as `build_colors`, but not for a missing library, which may be installed for the workers only.
    """
    if _checked_class(name, options) is ClipColors:
        given = inspect.signature(ClipColors).bind(**options)
        given.apply_defaults()
        ClipModel.check_options(**given.arguments)


def color_names(name: str, **options: Any) -> tuple[str, ...]:
    """Every colour that `build_colors` with the same arguments would answer; checks the options, needs no weights."""
    _checked_class(name, options)
    prototypes = options.get("prototypes")
    return GENEVAL_COLORS if prototypes is None else tuple(prototypes)


def _checked_class(name: str, options: Mapping[str, Any]) -> type:
    if name not in CLASSIFIERS:
        near = difflib.get_close_matches(name, CLASSIFIERS, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known colour classifiers: {', '.join(CLASSIFIERS)}"
        raise RewardError(f"unknown colour classifier {name!r}; {hint}")
    check_options(CLASSIFIERS[name], options, f"colour classifier {name}")
    return CLASSIFIERS[name]
