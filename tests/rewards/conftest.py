"""The OCR engine, loaded once, and text drawn on plain images."""

from __future__ import annotations

from collections.abc import Callable

import matplotlib
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from blip3o_grpo.rewards.ocr.reward import OCRReward


@pytest.fixture(scope="session")
def ocr() -> OCRReward:
    """One recogniser for the whole session; its import alone takes seconds."""
    return OCRReward()


@pytest.fixture(scope="session")
def draw_text() -> Callable[..., np.ndarray]:
    """A function that draws lines of bold text, centred on a plain `[size, size, 3]` uint8 RGB image."""

    def draw(*lines: str, size: int = 64, font_px: int = 18, ink=(255, 255, 255), paper=(30, 80, 200)) -> np.ndarray:
        image = Image.new("RGB", (size, size), paper)
        font = ImageFont.truetype(f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans-Bold.ttf", font_px)
        ImageDraw.Draw(image).multiline_text(
            (size / 2, size / 2), "\n".join(lines), ink, font, anchor="mm", align="center", spacing=font_px // 2
        )
        return np.asarray(image)

    return draw
