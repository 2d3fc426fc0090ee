"""Every kind of image becomes RGB of 8 bits in one documented way, or is refused with a reason."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from blip3o_grpo.rewards import RewardError
from blip3o_grpo.rewards.images import as_rgb

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
