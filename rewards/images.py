"""The one reader of pictures: files and arrays become `[H, W, 3]` uint8 RGB in one documented way, or are refused.

Formats are those that need no other program: Pillow would call Ghostscript for some. Left out on purpose: colour
profiles, which detectors and encoders were not trained with.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from blip3o_grpo.configs.regular_files import open_regular
from blip3o_grpo.rewards.types import RewardError

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
MAX_PIXELS = 64 * 1024**2
"""8192 x 8192; 192 MiB once unpacked."""

_PLAIN_MODES = ("1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "HSV", "LAB")
"""PIL modes without transparency, 8 bits per channel or less, that PIL converts to RGB without loss of range."""
_GREY_STEPS = {"L;2": 85, "L;4": 17}
"""PNG greys of 2 and 4 bits: what Pillow multiplies the pixels by, but not the transparent grey."""
_LOW_BYTES = {"RGB;16B": "RGB;16L", "RGBA;16B": "RGBA;16L"}
"""How a PNG's 16-bit colours are laid out, and the layout that makes Pillow unpack their low bytes instead."""


class ImageFileError(ValueError):
    """A file that is no usable image: names it and says why."""


def open_rgb(path: Path) -> Image.Image:
    """The picture in a file: RGB, upright, transparency over white, the first frame of an animation; in memory.

    Raises:
        ImageFileError: missing, no regular file (a link to one is followed), of another format, larger than
            `MAX_PIXELS` by its header, without a known range, cut off or broken.
    """
    with _opened(path) as (image, file):
        deep = _deep_png(image, file)
        if deep is None:
            return Image.fromarray(as_rgb(image))
        return ImageOps.exif_transpose(_with_exif(Image.fromarray(as_rgb(deep)), image))


def check_header(path: Path) -> None:
    """What the header alone tells, quickly, of a picture that will be read later.

    Raises:
        ImageFileError: missing, no regular file, of another format, or larger than `MAX_PIXELS`.
    """
    with _opened(path):
        pass


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Image.Image, BufferedReader]]:
    """The picture, of which only the header is read yet, and its file; errors inside the block are about the file."""
    try:
        with open_regular(path) as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large pictures, where our own limit is lower, and of odd EXIF data
            with Image.open(file, formats=FORMATS) as image:  # reads the header only
                if image.width * image.height > MAX_PIXELS:
                    raise ImageFileError(
                        f"{path}: {image.width} x {image.height} px, more than {MAX_PIXELS} pixels in all"
                    )
                yield image, file
    except ImageFileError:
        raise
    except Exception as error:  # whatever Pillow's decoders make of a broken file
        reason = error.strerror if isinstance(error, OSError) and error.strerror else " ".join(str(error).split())
        raise ImageFileError(f"{path}: not a readable image ({reason or type(error).__name__})") from error


def as_rgb(image: Image.Image | np.ndarray) -> np.ndarray:
    """Convert an image to `[H, W, 3]` uint8 RGB; an array that already is that comes back as it is.

    Greyscale is repeated, transparency is laid over white, and 16 bits per channel (0 to 65535) become 8 by division by
    257 with rounding. A PIL image is turned as its EXIF orientation says. PIL itself keeps only the high byte of 16-bit
    colours; `open_rgb` reads a PNG's low byte, too.

    Args:
        image: PIL image, or array `[H, W]`, `[H, W, 1]`, `[H, W, 3]` or `[H, W, 4]` (RGBA) of uint8 or uint16.

    Raises:
        RewardError: floats, other integers, other shapes, or no pixels: their range or meaning is not known.
    """
    if isinstance(image, Image.Image):
        image = np.asarray(ImageOps.exif_transpose(_with_exif(_from_pil(image), image)))
    if not isinstance(image, np.ndarray):
        raise RewardError(f"an image must be a PIL image or a numpy array, not {type(image).__name__}")
    if image.ndim == 2:
        image = image[:, :, None]
    if image.ndim != 3 or image.shape[2] not in (1, 3, 4):
        raise RewardError(f"an image of shape {image.shape} is none of [H, W], [H, W, 1], [H, W, 3] and [H, W, 4]")
    if 0 in image.shape:
        raise RewardError(f"an image of shape {image.shape} has no pixels")
    if image.dtype not in (np.uint8, np.uint16):
        raise RewardError(f"an image of {image.dtype} has no known range; give uint8 (0 to 255) or uint16 (0 to 65535)")
    if image.dtype == np.uint16:
        image = _in_8_bits(image)
    if image.shape[2] == 4:
        return _over_white(image)
    return np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image


def _from_pil(image: Image.Image) -> Image.Image:
    """Mode L, RGB or RGBA, 8 bits per channel, not yet turned."""
    mode, transparent = image.mode, image.info.get("transparency")
    if mode.startswith("I;16") or (mode == "I" and image.format == "PPM"):  # PIL scales a PGM's greys to 0..65535
        deep = np.asarray(image).astype(np.uint16)
        grey = Image.fromarray(_in_8_bits(deep))
        if not isinstance(transparent, int):
            return grey
        return Image.merge("LA", (grey, Image.fromarray(np.uint8(255) * (deep != transparent)))).convert("RGBA")
    if mode == "L" and isinstance(transparent, int) and getattr(image, "tile", None):
        step = _GREY_STEPS.get(image.tile[0].args, 1)
        image.load()
        image.info["transparency"] = transparent * step
    if image.has_transparency_data:
        return image.convert("RGBA")
    if mode in _PLAIN_MODES:
        return image.convert("RGB")
    raise RewardError(f"a PIL image of mode {mode!r} has no known range; convert it to 'RGB' or 'I;16' first")


def _with_exif(image: Image.Image, source: Image.Image) -> Image.Image:
    """`image` with the orientation of `source`, which a conversion through an array loses."""
    orientation = source.getexif().get(0x0112)
    if orientation is not None:
        image.getexif()[0x0112] = orientation
    return image


def _deep_png(image: Image.Image, file: BufferedReader) -> np.ndarray | None:
    """`[H, W, 3 or 4]` uint16 of a PNG with 16 bits per colour; None of any other picture."""
    layout = image.tile[0].args if image.format == "PNG" and image.tile else None
    if layout == "LA;16B":
        pairs = _unpacked(file, "RGBA").astype(np.uint16)  # grey and alpha, high byte and low byte: as long as RGBA
        grey, alpha = pairs[:, :, 0] << 8 | pairs[:, :, 1], pairs[:, :, 2] << 8 | pairs[:, :, 3]
        return np.stack([grey, grey, grey, alpha], axis=2)
    if layout not in _LOW_BYTES:
        return None
    deep = _unpacked(file, layout).astype(np.uint16) << 8 | _unpacked(file, _LOW_BYTES[layout])
    if "transparency" not in image.info:
        return deep
    alpha = np.uint16(65535) * (deep != np.array(image.info["transparency"], np.uint16)).any(axis=2, keepdims=True)
    return np.concatenate([deep, alpha], axis=2)


def _unpacked(file: BufferedReader, layout: str) -> np.ndarray:
    """The bytes of a PNG's pixels, read as if they had this layout."""
    file.seek(0)
    with Image.open(file, formats=["PNG"]) as image:
        image.tile = [tile._replace(args=layout) for tile in image.tile]
        return np.asarray(image)


def _in_8_bits(image: np.ndarray) -> np.ndarray:
    return ((image.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _over_white(image: np.ndarray) -> np.ndarray:
    alpha = image[:, :, 3:].astype(np.float32) / 255
    return np.rint(image[:, :, :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)
