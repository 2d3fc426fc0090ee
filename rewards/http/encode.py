"""Images as PNG, for requests: JPEG would change what is scored."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image


def encode_png(image: np.ndarray) -> bytes:
    """An image `[H, W, 3]` uint8 RGB as a PNG, quickly."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()
