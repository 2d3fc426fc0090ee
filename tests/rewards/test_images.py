"""Every kind of image becomes RGB of 8 bits in one documented way, or is refused with a reason."""

from __future__ import annotations

import io
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from blip3o_grpo.rewards import RewardError
from blip3o_grpo.rewards.images import ImageFileError, as_rgb, open_rgb

RGB = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)


def test_rgb_is_left_as_it_is():
    assert as_rgb(RGB) is RGB
    np.testing.assert_array_equal(as_rgb(Image.fromarray(RGB)), RGB)


@pytest.mark.parametrize("image", [RGB[:, :, 0], RGB[:, :, :1], Image.fromarray(RGB[:, :, 0])])
def test_greyscale_is_repeated(image):
    np.testing.assert_array_equal(as_rgb(image), np.repeat(RGB[:, :, :1], 3, axis=2))


def test_transparency_is_laid_over_white():
    rgba = np.zeros((1, 3, 4), np.uint8)
    rgba[0, :, 0] = 200
    rgba[0, :, 3] = (0, 51, 255)
    expected = [[(255, 255, 255), (244, 204, 204), (200, 0, 0)]]
    np.testing.assert_array_equal(as_rgb(rgba), expected)
    np.testing.assert_array_equal(as_rgb(Image.fromarray(rgba)), expected)
    grey = Image.merge("LA", [Image.new("L", (1, 1), 200), Image.new("L", (1, 1), 51)])
    np.testing.assert_array_equal(as_rgb(grey), [[(244, 244, 244)]])
    palette = Image.new("P", (1, 1), 0)
    palette.putpalette([200, 0, 0])
    palette.info["transparency"] = 0
    np.testing.assert_array_equal(as_rgb(palette), [[(255, 255, 255)]])


def test_16_bits_become_8():
    deep = np.array([[0, 128, 129, 257 * 17, 65407, 65535]], np.uint16)
    expected = np.repeat(np.array([0, 0, 1, 17, 255, 255])[None, :, None], 3, axis=2)
    np.testing.assert_array_equal(as_rgb(deep), expected)
    file = io.BytesIO()
    Image.fromarray(deep).save(file, "png")
    np.testing.assert_array_equal(as_rgb(Image.open(file)), expected)


def test_a_pixel_is_an_image():
    np.testing.assert_array_equal(as_rgb(np.array([[9]], np.uint8)), [[(9, 9, 9)]])
    np.testing.assert_array_equal(as_rgb(Image.new("1", (1, 1), 1)), [[(255, 255, 255)]])


def test_a_photograph_is_turned_upright():
    image = Image.fromarray(RGB)
    image.getexif()[0x0112] = 6  # to be turned by a quarter, clockwise
    np.testing.assert_array_equal(as_rgb(image), np.rot90(RGB, -1))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (RGB / 255, "float64 has no known range"),
        (RGB.astype(np.int32), "int32 has no known range"),
        (RGB[:, :, 0] > 3, "bool has no known range"),
        (RGB[:, :, :2], r"shape \(5, 7, 2\)"),
        (RGB[None], r"shape \(1, 5, 7, 3\)"),
        (RGB[:0], "no pixels"),
        (Image.new("F", (2, 2)), "mode 'F'"),
        (Image.new("I", (2, 2)), "mode 'I'"),
        ([[1, 2]], "not list"),
    ],
)
def test_what_has_no_clear_meaning_is_refused(image, message):
    with pytest.raises(RewardError, match=message):
        as_rgb(image)


def png(width, depth, colour, row, transparent=None):
    """A PNG of one row of raw samples."""
    parts = [(b"IHDR", struct.pack(">IIBBBBB", width, 1, depth, colour, 0, 0, 0))]
    parts += [(b"tRNS", transparent)] if transparent else []
    parts += [(b"IDAT", zlib.compress(b"\0" + row)), (b"IEND", b"")]
    chunks = [struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in parts]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def shorts(*values):
    return struct.pack(f">{len(values)}H", *values)


def opened(tmp_path, content):
    path = tmp_path / "picture"
    path.write_bytes(content)
    return np.asarray(open_rgb(path)).tolist()


WHITE = [255, 255, 255]


@pytest.mark.parametrize(
    ("content", "pixels"),
    [
        (png(2, 16, 0, shorts(0x12FF, 65535)), [[19] * 3, WHITE]),
        (png(2, 16, 0, shorts(0x1234, 7), shorts(0x1234)), [WHITE, [0] * 3]),
        (png(2, 16, 2, shorts(0x12FF, 0x1200, 65535, 1, 129, 128)), [[19, 18, 255], [0, 1, 0]]),
        (png(2, 16, 2, shorts(0x12FF, 0, 0, 0x1200, 0, 0), shorts(0x12FF, 0, 0)), [WHITE, [18, 0, 0]]),
        (png(2, 16, 4, shorts(0x12FF, 65535, 0x12FF, 0)), [[19] * 3, WHITE]),
        (png(2, 16, 6, shorts(0x12FF, 0, 0, 65535, 9, 9, 9, 0)), [[19, 0, 0], WHITE]),
        (png(4, 2, 0, bytes([0b00011011]), shorts(2)), [[0] * 3, [85] * 3, WHITE, WHITE]),
        (png(2, 4, 0, bytes([0x1F]), shorts(1)), [WHITE, WHITE]),
        (png(2, 8, 2, bytes([9, 9, 9, 8, 8, 8]), shorts(9, 9, 9)), [WHITE, [8] * 3]),
        (b"P5 2 1 65535\n\x12\xff\xff\xff", [[19] * 3, WHITE]),
        (b"P5 2 1 255\n\x07\xff", [[7] * 3, WHITE]),
    ],
)
def test_files_of_every_depth(tmp_path, content, pixels):
    assert opened(tmp_path, content) == [pixels]


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_a_file_of_16_bits_and_an_orientation(tmp_path, kind):
    deep, exif = np.array([[0, 257 * 9]], np.uint16), Image.Exif()
    exif[0x0112] = 3
    Image.fromarray(deep).save(tmp_path / "picture", kind, exif=exif)
    assert np.asarray(open_rgb(tmp_path / "picture")).tolist() == [[[9] * 3, [0] * 3]]


def test_a_deep_colour_file_is_turned_too(tmp_path):
    content = png(2, 16, 2, shorts(0, 0, 0, 65535, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = 3
    raw = exif.tobytes()[6:]
    chunk = struct.pack(">I", len(raw)) + b"eXIf" + raw + struct.pack(">I", zlib.crc32(b"eXIf" + raw))
    assert opened(tmp_path, content[:33] + chunk + content[33:]) == [[[255, 0, 0], [0, 0, 0]]]


def test_files_with_other_colours(tmp_path):
    for mode, colour, expected in [
        ("CMYK", (0, 255, 255, 0), [254, 0, 0]),
        ("RGBA", (9, 9, 9, 0), WHITE),
        ("LA", (9, 0), WHITE),
        ("1", 1, WHITE),
        ("L", 7, [7] * 3),
    ]:
        Image.new(mode, (1, 1), colour).save(tmp_path / "picture", "TIFF" if mode == "CMYK" else "PNG")
        (((found,),),) = (np.asarray(open_rgb(tmp_path / "picture")).tolist(),)
        assert np.abs(np.subtract(found, expected)).max() <= 1, mode


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_an_animation_the_first_frame(tmp_path, kind):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ((255, 0, 0), (0, 0, 255))]
    options = {"lossless": True} if kind == "WEBP" else {}
    frames[0].save(tmp_path / "picture", kind, save_all=True, append_images=frames[1:], **options)
    assert np.asarray(open_rgb(tmp_path / "picture"))[0, 0].tolist() == [255, 0, 0]


def test_broken_exif_is_no_broken_picture(tmp_path, recwarn):
    for exif in (b"junk", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"):
        Image.new("RGB", (2, 3)).save(tmp_path / "picture", "JPEG", exif=exif)
        assert open_rgb(tmp_path / "picture").size == (2, 3)
    assert not recwarn.list


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "No such file"),
        (os.mkfifo, "not a regular file"),
        (os.mkdir, "a folder, not a regular file"),
        (lambda path: os.symlink("/dev/zero", path), "not a regular file"),
        (lambda path: path.write_bytes(b""), "cannot identify"),
        (lambda path: path.write_bytes(png(9, 8, 2, bytes(range(27)))[:50]), "truncated"),
        (lambda path: path.write_bytes(png(9, 16, 2, bytes(20))), "truncated"),
        (lambda path: path.write_bytes(png(2**31 - 1, 8, 2, b"")), "decompression bomb"),
        (lambda path: path.write_bytes(png(70_000_000, 8, 2, b"")), "more than 67108864 pixels"),
        (lambda path: Image.new("F", (2, 2)).save(path, "TIFF"), "mode 'F' has no known range"),
        (lambda path: Image.new("I", (2, 2)).save(path, "TIFF"), "mode 'I' has no known range"),
    ],
)
def test_files_that_are_no_pictures_are_one_line(tmp_path, make, message):
    """A pipe without a writer among them: it is never waited for."""
    path = tmp_path / "picture.png"
    make(path)
    with pytest.raises(ImageFileError, match=message) as error:
        open_rgb(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_a_link_to_a_picture_is_followed(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "blob", "PNG")
    (tmp_path / "picture.png").symlink_to("blob")
    np.testing.assert_array_equal(np.asarray(open_rgb(tmp_path / "picture.png")), RGB)
