"""Opens image files that somebody else made: a few formats, bounded in pixels, any damage one sentence.

The formats are those that need no other program: Pillow would call Ghostscript for some. What a picture looks like
(which way up, on which ground, in which range) `rewards.images.as_rgb` decides, for files as for everything else.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

from blip3o_grpo.rewards.images import as_rgb

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
MAX_PIXELS = 64 * 1024**2
"""8192 x 8192; 192 MiB once unpacked."""


class ImageFileError(ValueError):
    """A file that is no usable image: names it and says why."""


def open_rgb(path: Path) -> Image.Image:
    """The image in RGB, in memory, turned as its EXIF orientation says and laid over white where it is transparent.

    Raises:
        ImageFileError: missing, of another format, larger than `MAX_PIXELS` by its header, cut off or broken, or with
            values whose range is not known.
    """
    with _opened(path) as file:
        return Image.fromarray(as_rgb(file))


def check_header(path: Path) -> None:
    """Read the header only, which tells most of what can be wrong.

    Raises:
        ImageFileError: missing, of another format, or larger than `MAX_PIXELS`.
    """
    with _opened(path):
        pass


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit is lower
            with Image.open(path, formats=FORMATS) as file:  # reads the header only
                if file.width * file.height > MAX_PIXELS:
                    raise ImageFileError(
                        f"{path}: {file.width} x {file.height} px, more than {MAX_PIXELS} pixels in all"
                    )
                yield file
    except ImageFileError:
        raise
    except Exception as error:  # whatever Pillow's decoders make of a broken file
        raise ImageFileError(f"{path}: not a readable image ({error})") from error
