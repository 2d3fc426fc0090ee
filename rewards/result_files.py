"""Files of a benchmark's own results: a file and a folder of images beside it, which must not be there yet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from blip3o_grpo.configs import ConfigError


def check_new(path: Path, suffix: str, beside: Sequence[Path]) -> None:
    """Refuse a path of another kind, or one where anything is already.

    Args:
        path: the result file.
        suffix: that it must have.
        beside: what else will be written.

    Raises:
        ConfigError: naming what is in the way.
    """
    if path.suffix != suffix:
        raise ConfigError(f"{path}: these results are written as {suffix}, not {path.suffix!r}")
    for file in (path, *beside):
        if file.exists():
            raise ConfigError(f"{file} exists; give another name")


def image_folder(path: Path) -> Path:
    """Folder of a result file's images."""
    return path.with_suffix("")


def save_image(folder: Path, name: str, image: np.ndarray) -> Path:
    """Write `[H, W, 3]` uint8 as a PNG; gives its path."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}.png"
    Image.fromarray(image).save(file)
    return file
