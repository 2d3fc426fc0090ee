"""Encoded pictures are those of the captions, whatever changed since; every picture is read the right way."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from blip3o_grpo.warmstart.encoded import EncodedPictures, fit_centre_crop, fit_released
from tests.grpo.warmstart.conftest import read_lines, write_captions


def same(first: EncodedPictures, second: EncodedPictures) -> bool:
    return torch.equal(first.tokens, second.tokens) and torch.equal(first.latents, second.latents)


def rows(encoded: EncodedPictures, order: list[int]) -> EncodedPictures:
    return EncodedPictures(encoded.tokens[order], encoded.latents[order])


@pytest.fixture
def encoded(start, config, load):
    return load(start, config)[1]


def test_unchanged_pictures_are_encoded_once(start, config, load, encoded, tmp_path):
    file = tmp_path / "encoded.safetensors"
    before = file.stat().st_mtime_ns
    captions = read_lines(tmp_path / "pictures" / "captions.jsonl")
    write_captions(tmp_path / "pictures" / "captions.jsonl", [line | {"text": "a sign"} for line in captions])
    prompt_ids, again, warnings = load(start, config)
    assert same(again, encoded) and not warnings and file.stat().st_mtime_ns == before
    assert prompt_ids == [start.prompts.encode("a sign")] * 24  # new captions, old pictures


@pytest.mark.parametrize("order", [[*range(1, 24), 0], [*range(5), *range(6, 24)]], ids=["reordered", "removed"])
def test_pictures_follow_their_captions(start, config, load, encoded, pictures, order):
    lines = read_lines(pictures / "captions.jsonl")
    write_captions(pictures / "captions.jsonl", [lines[number] for number in order])
    prompt_ids, again, warnings = load(start, config)
    assert torch.equal(again.tokens, encoded.tokens[order])
    assert torch.allclose(again.latents, encoded.latents[order], atol=1e-5)
    assert prompt_ids[3] == start.prompts.encode(lines[order[3]]["text"])
    assert len(warnings) == 1 and "made with other pictures; the pictures are encoded again" in warnings[0]


def test_a_replaced_picture_is_seen(start, config, load, encoded, pictures):
    (pictures / "0.png").write_bytes((pictures / "1.png").read_bytes())
    _, again, warnings = load(start, config)
    assert torch.equal(again.tokens[0], encoded.tokens[1]) and "other pictures" in warnings[0]


def test_other_encoders_and_another_preprocessing_are_seen(start, config, load, encoded, pictures):
    image = Image.open(pictures / "0.png").resize((90, 60))
    image.save(pictures / "0.png")
    _, squashed, _ = load(start, config)
    _, cropped, warnings = load(start, config.model_copy(update={"preprocessing": "centre_crop"}))
    assert "made with other preprocessing" in warnings[0] and not torch.equal(squashed.latents[0], cropped.latents[0])
    assert torch.equal(squashed.latents[1:], cropped.latents[1:])  # they have the model's size
    for module in (start.vision.bottleneck.in_linear, start.vae.encoder.conv_out):
        with torch.no_grad():
            module.bias.add_(1.0)
        _, other, warnings = load(start, config)
        assert "made with other" in warnings[0] and "encoders" in warnings[0] and not same(other, squashed)
        _, _, warnings = load(start, config)
        assert not warnings


@pytest.mark.parametrize("how", ["cut", "not safetensors", "one byte", "version 1", "empty"])
def test_a_damaged_or_older_file_is_made_again(start, config, load, encoded, tmp_path, how):
    file = tmp_path / "encoded.safetensors"
    content = file.read_bytes()
    if how == "version 1":
        save_file(load_file(file), file)
    else:
        spoilt = {"cut": content[:-100], "not safetensors": b"hello", "empty": b"", "one byte": content[:-1] + b"\xff"}
        file.write_bytes(spoilt[how])
    _, again, warnings = load(start, config)
    assert same(again, encoded) and len(warnings) == 1
    assert {"version 1": "of an older version", "one byte": "damaged"}.get(how, "cannot be read") in warnings[0]
    assert not load(start, config)[2]


def latents_of(start, config, load, pictures, image, **options):
    """Latents of one picture, saved with options."""
    image.save(pictures / "0.png", **options)
    return load(start, config)[1].latents[0]


def test_pictures_are_turned_laid_on_white_and_cut_to_eight_bits(start, config, load, pictures):
    plain = Image.open(pictures / "0.png").convert("RGB")
    wanted = latents_of(start, config, load, pictures, plain)
    exif = Image.Exif()
    exif[0x0112] = 3  # the camera was upside down
    turned = plain.transpose(Image.Transpose.ROTATE_180)
    assert torch.equal(latents_of(start, config, load, pictures, turned, exif=exif), wanted)

    grey = np.asarray(plain.convert("L"))
    wanted = latents_of(start, config, load, pictures, Image.fromarray(grey))
    deep = Image.fromarray(grey.astype(np.uint16) * 257)
    assert torch.equal(latents_of(start, config, load, pictures, deep), wanted)

    letters = np.zeros((56, 56, 4), np.uint8)
    letters[20:30, 10:40, 3] = 255  # black letters on nothing
    on_white = np.full((56, 56, 3), 255, np.uint8)
    on_white[20:30, 10:40] = 0
    wanted = latents_of(start, config, load, pictures, Image.fromarray(on_white))
    assert torch.equal(latents_of(start, config, load, pictures, Image.fromarray(letters)), wanted)


def test_released_preprocessing_squashes_the_whole_picture_with_bicubic_filtering():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 100, 3), np.uint8))
    seen, wanted = fit_released(image, 38, 64)
    assert (seen.size, wanted.size) == ((38, 38), (64, 64))
    np.testing.assert_array_equal(seen, image.resize((38, 38), Image.Resampling.BICUBIC))
    left = Image.new("RGB", (300, 100), "white")
    left.paste("red", (0, 0, 40, 100))
    assert np.asarray(fit_released(left, 38, 64)[1])[32, 2].tolist() == [255, 0, 0]
    assert np.asarray(fit_centre_crop(left, 38, 64)[1]).min() == 255  # the red edge is cut off


@pytest.mark.parametrize("fit", [fit_released, fit_centre_crop])
def test_a_picture_of_the_models_size_stays_as_it_is(fit):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (56, 56, 3), np.uint8))
    for fitted in fit(image, 56, 56):
        np.testing.assert_array_equal(fitted, image)
