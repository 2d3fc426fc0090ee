"""Captions and pictures that cannot be used are one sentence, before a model loads."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from blip3o_grpo.configs.policy import PolicySection
from blip3o_grpo.rewards.images import ImageFileError
from blip3o_grpo.warmstart import WarmstartDataError, read_captions, train_supervised


def line(**record):
    return (json.dumps({"file_name": "0.png", "text": "a"} | record) + "\n").encode()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b'{"file_name": "0.png", "text": "\xff"}\n', "is not UTF-8"),
        (b'{"file_name": "0.png"}\n', r"captions\.jsonl:1: each line"),
        (line() + b'{"text": "a"}\n', r"captions\.jsonl:2: each line"),
        (line(file_name="99.png"), r"captions\.jsonl:1: names .*99\.png, which does not exist"),
        (line() + b"\n" + line(file_name="99.png"), r"captions\.jsonl:3: names .*99\.png"),
        (line(file_name="."), "which is a folder"),
        (line(file_name="x" * 300), "does not exist"),
        (line(file_name="../0.png"), "leads out of the folder"),
        (line(text=" "), r"captions\.jsonl:1: `text` is ' '"),
        (line(text=7), "`text` is 7"),
        (line() + line(file_name="1.png") + line(text="b"), r":3: '0\.png' has a caption already, in line 1"),
        (line() + line(file_name="./0.png"), "has a caption already, in line 1"),
    ],
)
def test_bad_captions_are_named_before_a_model_loads(config, tmp_path, content, message):
    captions = tmp_path / "captions.jsonl"
    captions.write_bytes(content)
    bad = config.model_copy(update={"captions": str(captions), "policy": PolicySection(path="/nowhere")})
    with pytest.raises(WarmstartDataError, match=message) as caught:
        train_supervised(bad)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_folder_of_images_that_is_none_is_named(config, tmp_path):
    (tmp_path / "empty").mkdir()
    for folder, message in (("nowhere", "does not exist"), ("pictures/0.png", "is no folder"), ("empty", "is empty")):
        with pytest.raises(WarmstartDataError, match=rf"images: {tmp_path / folder} {message}"):
            read_captions(config.model_copy(update={"images": str(tmp_path / folder)}))


@pytest.mark.parametrize("content", [b"", b"not a picture", b"%!PS-Adobe-3.0 EPSF-3.0\n"])
def test_a_file_that_is_no_picture_is_named_before_a_model_loads(config, pictures, content):
    (pictures / "7.png").write_bytes(content)
    with pytest.raises(ImageFileError, match=r"7\.png: not a readable image"):
        train_supervised(config.model_copy(update={"policy": PolicySection(path="/nowhere")}))


def test_a_picture_that_is_cut_off_is_named_before_training(config, pictures):
    whole = (pictures / "7.png").read_bytes()
    (pictures / "7.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ImageFileError, match=r"7\.png: not a readable image"):
        train_supervised(config)


def test_a_picture_whose_range_is_not_known_is_named(config, pictures):
    Image.new("F", (56, 56), 0.5).save(pictures / "7.tiff")
    (pictures / "captions.jsonl").write_bytes(line(file_name="7.tiff"))
    with pytest.raises(ImageFileError, match=r"7\.tiff: .*mode 'F' has no known range"):
        train_supervised(config)


def test_a_caption_longer_than_the_context_is_named_with_its_line(config, pictures):
    with (pictures / "captions.jsonl").open("a") as file:
        (pictures / "24.png").write_bytes((pictures / "0.png").read_bytes())
        file.write(json.dumps({"file_name": "24.png", "text": "word " * 500}) + "\n")
    with pytest.raises(WarmstartDataError, match=r"captions\.jsonl:25: .*tokens long; the model's context"):
        train_supervised(config)
