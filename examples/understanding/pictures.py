"""What lmms-eval's tasks beside this file show: the picture that a question names."""

from __future__ import annotations

from typing import Any

from PIL import Image


def of(question: dict[str, Any]) -> list[Image.Image]:
    """The question's one picture, by a path relative to where lmms-eval is started."""
    return [Image.open(question["image"]).convert("RGB")]
