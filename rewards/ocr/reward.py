"""OCR reward: does the image show the text its prompt quotes? Real PaddleOCR on ONNX Runtime, offline.

Scores come from `rewards.ocr.text_score`; this file holds the recogniser. Not here: any protection of the rest of the
image. A policy that maximises this score alone is known to erase backgrounds, so recipes pair it with
`reference_guard`.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np

from blip3o_grpo.rewards.ocr.alphabet import readable_letters, unreadable
from blip3o_grpo.rewards.ocr.blocks import TextLine
from blip3o_grpo.rewards.ocr.models import (
    DETECTION,
    RECOGNITION,
    alphabet_file,
    default_folder,
    ensure_models,
    model_name,
    recognizer_folder,
)
from blip3o_grpo.rewards.ocr.quotes import target_texts
from blip3o_grpo.rewards.ocr.text_score import VARIANTS, Variant, score_lines
from blip3o_grpo.rewards.ocr.tilt import level_boxes
from blip3o_grpo.rewards.types import RewardBatch, RewardError

SMALL_IMAGE = 192
"""Longer side (px) below which an image is enlarged before it is read."""
DETECTION_SIDES = (160, 960)
"""Longer side (px) at which text is searched, in enlarged and in other images."""


class OCRReward:
    """Reads every image with PP-OCRv6 (small) and scores the text against the prompt's quoted text.

    Small images are enlarged by a whole factor first: 8 px wide letters are unreadable to the recogniser as they
    are. Their few large letters are then found at a low detection resolution, which costs a tenth of the default.

    Args:
        variant: `blip3o`, `exact`, `ned` or `word`; see `blip3o_grpo.rewards.ocr.text_score`.
        min_confidence: recognised lines below this confidence are ignored, in [0, 1].
        threads: CPU threads of the networks.
        detection_side: longer side (px) at which text is searched; None: 160 for enlarged images, 960 for others.
        model_folder: folder with `PP-OCRv6_small_det/` and the recogniser's; None: laid out in the user's cache from
            rapidocr's wheel.
        recognizer: PaddleOCR model that reads the lines: `PP-OCRv6_small_rec` (Latin, Chinese, Japanese), or the folder
            of another one, by path or by its name in `model_folder`, with `inference.onnx` and `inference.yml`.

    Raises:
        RewardError: an option out of range, or the models are missing.
    """

    needs = 'the words to write in double quotes, as in: a sign that says "TAXI"'

    def __init__(
        self,
        variant: Variant = "blip3o",
        min_confidence: float = 0.0,
        threads: int = 1,
        detection_side: int | None = None,
        model_folder: str | None = None,
        recognizer: str = RECOGNITION,
    ) -> None:
        self.check_options(variant, min_confidence, threads, detection_side, model_folder, recognizer)
        self.variant = variant
        self.min_confidence = min_confidence
        self.detection_side = detection_side
        models = ensure_models(_models(model_folder))
        self._engine = _load_engine(models / DETECTION, recognizer_folder(recognizer, models), threads)

    @staticmethod
    def check_options(
        variant: Variant = "blip3o",
        min_confidence: float = 0.0,
        threads: int = 1,
        detection_side: int | None = None,
        model_folder: str | None = None,
        recognizer: str = RECOGNITION,
    ) -> None:
        """Check option values without loading anything; raises RewardError."""
        if variant not in VARIANTS:
            raise RewardError(f"unknown OCR variant {variant!r}; the variants are {', '.join(VARIANTS)}")
        if not 0 <= min_confidence <= 1:
            raise RewardError(f"OCR min_confidence is {min_confidence}; it must lie in [0, 1]")
        if threads < 1:
            raise RewardError(f"OCR threads is {threads}; it must be at least 1")
        if detection_side is not None and detection_side < 32:
            raise RewardError(f"OCR detection_side is {detection_side}; it must be at least 32 px")
        if model_folder is not None and not Path(model_folder).is_dir():
            raise RewardError(f"OCR model_folder {model_folder!r} does not exist")
        recognizer_folder(recognizer, _models(model_folder))

    @staticmethod
    def is_outcome(**_: Any) -> bool:
        """Its scores are shares of letters."""
        return False

    @staticmethod
    def applicable(prompt: str, metadata: Mapping[str, Any]) -> bool:
        """Whether the prompt quotes text, or its record has a `target_text`."""
        return bool(target_texts(prompt, metadata))

    @staticmethod
    def check_prompt(
        prompt: str,
        metadata: Mapping[str, Any],
        model_folder: str | None = None,
        recognizer: str = RECOGNITION,
        **others: Any,
    ) -> None:
        """Refuse a quotation that is never closed, and letters that the recogniser cannot read; loads no network.

        Raises:
            RewardError: naming the quotation, or the letters.
        """
        targets = target_texts(prompt, metadata)
        beyond = unreadable(targets, readable_letters(alphabet_file(recognizer, _models(model_folder))))
        if beyond:
            raise RewardError(
                f"the OCR recognizer {recognizer} cannot read {' '.join(beyond)} of {', '.join(map(repr, targets))}: "
                "even a perfect picture would lose; leave the prompt out, or set recognizer to a model for that script"
            )

    def __call__(self, batch: RewardBatch) -> list[float | None]:
        """Scores in [0, 1]; None for prompts that ask for no text (their images are not read)."""
        return [
            self._score(image, target_texts(prompt, metadata))
            for image, prompt, metadata in zip(batch.images, batch.prompts, batch.metadata, strict=True)
        ]

    def _score(self, image: np.ndarray, targets: list[str]) -> float | None:
        return score_lines(self.read(image), targets, self.variant, self.min_confidence) if targets else None

    def read(self, image: np.ndarray) -> list[TextLine]:
        """All lines of text in one `[H, W, 3]` uint8 RGB image, unsorted, boxes in the image's own pixels.

        Where text is tilted, boxes are those of the image turned until it is level.
        """
        factor = max(1, -(-SMALL_IMAGE // max(image.shape[:2])))
        side = self.detection_side or DETECTION_SIDES[factor == 1]
        picture = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)  # PaddleOCR reads arrays as BGR
        if factor > 1:
            picture = cv2.resize(picture, None, fx=factor, fy=factor, interpolation=cv2.INTER_LANCZOS4)
        (found,) = self._engine.predict(picture, text_det_limit_side_len=side, text_det_limit_type="max")
        boxes = level_boxes([np.asarray(quad) / factor for quad in found["rec_polys"]])
        return [
            TextLine(text, float(confidence), box)
            for text, confidence, box in zip(found["rec_texts"], found["rec_scores"], boxes, strict=True)
        ]


def _models(model_folder: str | None) -> Path:
    return Path(model_folder) if model_folder else default_folder()


def _load_engine(detection: Path, recognition: Path, threads: int) -> Any:
    """PaddleOCR itself, without its optional stages. The import alone takes seconds, hence here."""
    with _modelscope_left_out():
        from paddleocr import PaddleOCR

    logging.getLogger("paddlex").setLevel(logging.WARNING)
    return PaddleOCR(
        text_detection_model_name=DETECTION,
        text_detection_model_dir=str(detection),
        text_recognition_model_name=model_name(recognition),
        text_recognition_model_dir=str(recognition),
        use_doc_orientation_classify=False,
        use_doc_unwarping=False,
        use_textline_orientation=False,
        engine="onnxruntime",
        engine_config={"intra_op_num_threads": threads},
        device="cpu",
    )


@contextmanager
def _modelscope_left_out() -> Iterator[None]:
    """Let PaddleOCR import an empty `modelscope`, which it needs only to download from that hub.

    The real one imports torch, transformers and peft: four fifths of PaddleOCR's import time, and 0.4 GB per worker.
    """
    if "modelscope" in sys.modules:
        yield
        return
    sys.modules["modelscope"] = ModuleType("modelscope")
    try:
        yield
    finally:
        del sys.modules["modelscope"]
