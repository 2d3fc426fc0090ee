"""The real recogniser on drawn text: what it reads, in which orientation of colours, and at which size."""

from __future__ import annotations

import random
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from blip3o_grpo.policies.tiny_world import world
from blip3o_grpo.rewards import RewardBatch, RewardError, build_reward, check_reward, find_reward, score
from blip3o_grpo.rewards.ocr.models import DETECTION, RECOGNITION, ensure_models
from blip3o_grpo.rewards.ocr.reward import OCRReward
from blip3o_grpo.rewards.ocr.text_score import score_lines


def batch_of(*samples: tuple[np.ndarray, str, dict]) -> RewardBatch:
    images, prompts, metadata = zip(*samples, strict=True)
    return RewardBatch(list(images), list(prompts), list(metadata))


def test_signs_of_the_tiny_world_are_read_almost_perfectly(ocr):
    """The reward cannot teach what it cannot read: drawn signs are the ceiling of every later score."""
    generator = random.Random(5)
    signs = [world.sign(generator) for _ in range(60)]
    lines = [ocr.read(world.render(sign)) for sign in signs]
    assert np.mean([score_lines(read, [sign.word]) for read, sign in zip(lines, signs, strict=True)]) >= 0.98
    exact = [score_lines(read, [sign.word], "exact") for read, sign in zip(lines, signs, strict=True)]
    assert np.mean(exact) >= 0.95


@pytest.mark.parametrize(("size", "font_px"), [(48, 14), (64, 20), (256, 60), (512, 90)])
def test_text_is_read_at_any_image_size(ocr, draw_text, size, font_px):
    image = draw_text("TAXI", size=size, font_px=font_px)
    (line,) = ocr.read(image)
    assert line.text == "TAXI"
    x1, y1, x2, y2 = line.box
    assert 0 <= x1 < size / 2 < x2 <= size and 0 <= y1 < size / 2 < y2 <= size  # in the image's own pixels


def test_lines_are_scored_in_reading_order(ocr, draw_text):
    image = draw_text("OPEN", "24H", size=128, font_px=32)
    batch = batch_of((image, 'a sign that says "OPEN 24H"', {}), (image, 'says "24H OPEN"', {}))
    first, second = score(ocr, batch)
    assert first == 1 and second < 1


def test_a_wrong_word_scores_less_than_the_right_one_and_a_blank_image_nothing(ocr, draw_text):
    prompt = 'a blue sign that says "TAXI"'
    images = [draw_text("TAXI"), draw_text("TAX"), draw_text("BUS"), np.full((64, 64, 3), 255, np.uint8)]
    scores = score(ocr, batch_of(*((image, prompt, {}) for image in images)))
    assert scores[0] == 1
    assert scores[1] == 0.75
    assert scores[2] <= 0.25
    assert scores[3] == 0


def test_prompts_without_text_are_not_applicable(ocr, draw_text):
    image = draw_text("TAXI")
    batch = batch_of(
        (image, "a photo of a bench", {}), (image, "a bench", {"target_text": "TAXI"}), (image, 'says ""', {})
    )
    assert score(ocr, batch) == [None, 1, None]
    assert not find_reward("ocr").applies("a photo of a bench", {})
    assert find_reward("ocr").applies("a bench", {"target_text": "TAXI"})


def test_ocr_keeps_the_promises_of_a_reward(ocr, draw_text):
    batch = batch_of(
        (draw_text("TAXI"), 'says "TAXI"', {}),
        (draw_text("GATE", size=96), 'says "GATE 7"', {}),
        (draw_text("BUS"), "no text wanted", {}),
    )
    assert check_reward(ocr, batch).scores == [1, 0.8, None]


def test_images_are_read_as_rgb(ocr):
    """PaddleOCR takes arrays as BGR: what reaches it must be the image with its channels swapped."""
    sign = world.sign(random.Random(3))
    image = world.render(sign)
    seen = []
    ocr_engine, predict = ocr._engine, ocr._engine.predict

    class Spy:
        def predict(self, picture, **settings):
            seen.append(picture)
            return predict(picture, **settings)

    ocr._engine = Spy()
    ocr.read(image)
    ocr._engine = ocr_engine
    assert tuple(seen[0][0, 0]) == tuple(image[0, 0, ::-1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variant": "fuzzy"}, "blip3o, exact, ned, word"),
        ({"min_confidence": 1.5}, r"\[0, 1\]"),
        ({"min_confidence": "high"}, "wrong type"),
        ({"threads": 0}, "at least 1"),
        ({"detection_side": 8}, "at least 32"),
        ({"model_folder": "/does/not/exist"}, "does not exist"),
        ({"recognizer": "PP-OCRv5_korean"}, "only PP-OCRv6_small_rec comes with rapidocr"),
        ({"recognizer": 5}, "wrong type"),
        ({"varient": "exact"}, "did you mean 'variant'"),
    ],
)
def test_bad_options_are_refused_before_the_models_load(options, message):
    with pytest.raises(RewardError, match=message):
        build_reward("ocr", options)


def test_registered_under_its_name():
    assert find_reward("ocr").target is OCRReward


def test_models_are_laid_out_once_and_found_again(tmp_path):
    folder = ensure_models(tmp_path / "models")
    stamps = {path: path.stat().st_mtime_ns for path in folder.rglob("inference.*")}
    assert {path.parent.name for path in stamps} == {DETECTION, RECOGNITION} and len(stamps) == 4
    ensure_models(folder)
    assert stamps == {path: path.stat().st_mtime_ns for path in folder.rglob("inference.*")}


def test_another_recogniser_is_loaded_from_its_folder(tmp_path, draw_text):
    """Here the same network, with other letters for its first two classes."""
    models = ensure_models()
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "inference.onnx").symlink_to(models / RECOGNITION / "inference.onnx")
    settings = (models / RECOGNITION / "inference.yml").read_text(encoding="utf-8")
    (folder / "inference.yml").write_text(settings.replace("- T\n", "- Т\n"), encoding="utf-8")  # a Cyrillic T
    image = draw_text("TAXI")
    mine = build_reward("ocr", {"recognizer": str(folder)})
    assert mine.read(image)[0].text == "\u0422AXI"
    assert score(mine, batch_of((image, 'says "\u0422AXI"', {}))) == [1]


def test_panels_side_by_side_are_read_as_panels(ocr, draw_text):
    panels = [draw_text("OPEN", "DAILY", size=256, font_px=40), draw_text("CLOSED", "SUNDAY", size=256, font_px=40)]
    image = np.concatenate(panels, axis=1)
    lines = ocr.read(image)
    for variant in ("blip3o", "exact", "ned", "word"):
        assert score_lines(lines, ["OPEN DAILY", "CLOSED SUNDAY"], variant) == 1
    assert score(ocr, batch_of((image, 'left of a pair of doors: "OPEN DAILY"', {}))) == [1]


@pytest.mark.parametrize("degrees", [-20, 20])
def test_panels_that_hang_askew_are_read_as_panels(ocr, draw_text, degrees):
    panels = [draw_text(*texts, size=320, font_px=40) for texts in (("OPEN", "EVERY", "DAY"), ("CLOSED", "SUNDAY"))]
    picture = Image.fromarray(np.concatenate(panels, axis=1))
    image = np.asarray(picture.rotate(degrees, Image.Resampling.BICUBIC, expand=True, fillcolor=(30, 80, 200)))
    assert score_lines(ocr.read(image), ["OPEN EVERY DAY", "CLOSED SUNDAY"], "exact") == 1


def test_a_recogniser_that_drops_spaces_beside_symbols_costs_no_words(ocr, draw_text):
    lines = ocr.read(draw_text("C++ & C#", size=512, font_px=60))
    assert score_lines(lines, ["C++ & C#"], "word") == 1


def test_the_recogniser_runs_without_torch():
    """PaddleOCR's import of modelscope would bring torch, transformers and peft into every OCR worker."""
    code = (
        "import sys, numpy as np; from blip3o_grpo.rewards.ocr.reward import OCRReward;"
        "assert OCRReward().read(np.zeros((64, 64, 3), np.uint8)) == [];"
        "assert not {'torch', 'transformers', 'modelscope'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
