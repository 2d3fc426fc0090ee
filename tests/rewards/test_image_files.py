"""Image files of others are read the way a viewer shows them, or refused in one sentence."""

import numpy as np
import pytest
from PIL import Image

from blip3o_grpo.rewards.images import ImageFileError, check_header, open_rgb

RGB = np.random.default_rng(0).integers(0, 256, (12, 20, 3), np.uint8)


def test_a_camera_that_was_turned(tmp_path):
    exif = Image.Exif()
    for orientation, back in ((3, Image.Transpose.ROTATE_180), (6, Image.Transpose.ROTATE_90)):
        exif[0x0112] = orientation
        Image.fromarray(RGB).transpose(back).save(tmp_path / "turned.png", exif=exif)
        np.testing.assert_array_equal(open_rgb(tmp_path / "turned.png"), RGB)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_letters_on_transparent_ground_are_on_white(tmp_path, mode):
    ground = np.zeros((8, 8, 4), np.uint8)
    ground[2:4, 2:6, 3] = 255
    image = Image.fromarray(ground)
    if mode == "P":
        image = Image.fromarray(ground[:, :, 3] // 255)
        image.putpalette([0, 0, 0, 0, 0, 0])
        image.info["transparency"] = 0
    image = image if mode == "P" else image.convert(mode)
    image.save(tmp_path / "letters.png")
    read = np.asarray(open_rgb(tmp_path / "letters.png"))
    assert (read[2:4, 2:6] == 0).all() and (read == 255).sum() == read.size - 24


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_sixteen_bits_of_grey_keep_their_range(tmp_path, suffix):
    grey = RGB[:, :, 0]
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / f"deep.{suffix}")
    np.testing.assert_array_equal(open_rgb(tmp_path / f"deep.{suffix}"), np.repeat(grey[:, :, None], 3, 2))


def test_values_without_a_known_range_are_refused_with_the_files_name(tmp_path):
    Image.new("F", (4, 4), 0.5).save(tmp_path / "floats.tiff")
    check_header(tmp_path / "floats.tiff")
    with pytest.raises(ImageFileError, match=r"floats\.tiff: not a readable image \(a PIL image of mode 'F'"):
        open_rgb(tmp_path / "floats.tiff")


def test_the_header_alone_tells_what_is_no_picture(tmp_path):
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(ImageFileError, match=r"text\.png: not a readable image"):
        check_header(tmp_path / "text.png")
