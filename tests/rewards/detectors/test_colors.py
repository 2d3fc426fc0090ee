"""Colour classifiers: CLIP does exactly what GenEval's official evaluation does, and the plain one names plain colours.

CLIP runs on a tiny model with random weights, so its answers mean nothing; the arithmetic is what is compared.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from blip3o_grpo.rewards import RewardError
from blip3o_grpo.rewards.detectors.colors import (
    GENEVAL_COLORS,
    PROTOTYPES,
    ClipColors,
    NearestColor,
    build_colors,
    color_names,
    cut_out,
)
from blip3o_grpo.rewards.detectors.detections import ColorClassifier, Detections
from tests.rewards.tiny_clip import write_tiny_clip


@pytest.fixture(scope="module")
def tiny_clip(tmp_path_factory) -> tuple[str, Path]:
    return write_tiny_clip(tmp_path_factory.mktemp("clip"))


def detections(*boxes, masks=None, name="car") -> Detections:
    count = len(boxes)
    return Detections(np.array(boxes, float), np.ones(count), (name,) * count, masks)


def disc(colour, size=60, radius=20, background=(90, 140, 90)) -> tuple[np.ndarray, np.ndarray]:
    """A `[size, size, 3]` image of a disc in its middle, and the disc's mask."""
    rows, columns = np.mgrid[:size, :size]
    mask = (rows - size / 2) ** 2 + (columns - size / 2) ** 2 < radius**2
    return np.where(mask[:, :, None], np.uint8(colour), np.uint8(background)), mask


@pytest.mark.parametrize("name", GENEVAL_COLORS)
def test_each_colour_is_named_with_and_without_a_mask(name):
    image, mask = disc(PROTOTYPES[name])
    box = (10, 10, 50, 50)
    classify = build_colors("nearest")
    assert isinstance(classify, ColorClassifier) and classify.color_names == GENEVAL_COLORS
    assert classify(image, detections(box, masks=mask[None]), [0]) == [name]
    assert classify(image, detections(box), [0]) == [name]


@pytest.mark.parametrize(
    ("rgb", "name"),
    [((255, 0, 0), "red"), ((0, 255, 0), "green"), ((0, 0, 255), "blue"), ((255, 255, 0), "yellow"),
     ((0, 0, 0), "black"), ((255, 255, 255), "white"), ((128, 0, 128), "purple"), ((255, 165, 0), "orange"),
     ((255, 192, 203), "pink"), ((139, 69, 19), "brown"), ((20, 80, 30), "green"), ((150, 20, 25), "red")],
)  # fmt: skip
def test_colours_as_web_pages_name_them(rgb, name):
    image, mask = disc(rgb)
    assert NearestColor()(image, detections((10, 10, 50, 50), masks=mask[None]), [0]) == [name]


def test_rims_and_highlights_do_not_count():
    image, mask = disc((35, 80, 200))
    rim = mask & ~disc((0, 0, 0), radius=16)[1]
    image[rim] = (20, 20, 20)
    image[25:29, 25:29] = 255
    assert NearestColor()(image, detections((10, 10, 50, 50), masks=mask[None]), [0]) == ["blue"]


def test_own_prototypes_and_chosen_objects_only():
    image = np.zeros((20, 40, 3), np.uint8)
    image[:, 20:] = (0, 200, 200)
    classify = build_colors("nearest", prototypes={"coal": [0, 0, 0], "cyan": [0, 255, 255]})
    assert classify.color_names == ("coal", "cyan")
    found = detections((0, 0, 20, 20), (20, 0, 40, 20))
    assert classify(image, found, [1, 0]) == ["cyan", "coal"]
    assert classify(image, found, [1]) == ["cyan"]
    assert classify(image, found, []) == []


def test_the_smallest_objects_have_a_colour():
    dot = np.full((1, 1, 3), 255, np.uint8)
    assert NearestColor()(dot, detections((0, 0, 1, 1), masks=np.ones((1, 1, 1), bool)), [0]) == ["white"]
    assert NearestColor()(dot, detections((0, 0, 1, 1)), [0]) == ["white"]
    image = np.zeros((9, 9, 3), np.uint8)
    image[8, 8] = 255
    assert NearestColor()(image, detections((8.6, 8.6, 9, 9)), [0]) == ["white"]
    empty = np.zeros((1, 9, 9), bool)
    assert NearestColor()(image, detections((0, 0, 0, 0), masks=empty), [0]) == ["black"]


def test_what_is_outside_the_mask_is_grey_153():
    image, mask = disc((200, 0, 0))
    found = detections((12.4, 9.6, 50, 50), masks=mask[None])
    whole = Image.composite(Image.fromarray(image), Image.new("RGB", (60, 60), "#999"), Image.fromarray(mask))
    expected = whole.crop((12.4, 9.6, 50.0, 50.0))  # as the official evaluation cuts
    np.testing.assert_array_equal(np.asarray(cut_out(image, found, 0)), np.asarray(expected))
    plain = cut_out(image, detections((10, 10, 50, 50)), 0)
    np.testing.assert_array_equal(np.asarray(plain), image[10:50, 10:50])
    assert cut_out(image, detections((3.1, 3.1, 3.3, 3.3)), 0).size == (1, 1)


def test_clip_answers_as_the_official_evaluation(tiny_clip):
    """Recomputed with open_clip alone: texts normalised, averaged over templates, normalised; then the nearest."""
    import open_clip
    import torch
    from torch.nn.functional import normalize

    model_name, weights = tiny_clip
    classify = build_colors("clip", model=model_name, pretrained=str(weights))
    assert isinstance(classify, ColorClassifier) and isinstance(classify, ClipColors)
    images = [disc(PROTOTYPES[name])[0] for name in ("red", "white", "blue", "black")]
    mask = disc((0, 0, 0))[1]
    found = detections((10, 10, 50, 50), (0, 0, 60, 60), masks=np.stack([mask, ~mask]), name="traffic light")

    model, _, transform = open_clip.create_model_and_transforms(model_name, pretrained=str(weights))
    model.eval()
    tokenize = open_clip.get_tokenizer(model_name)
    with torch.no_grad():
        columns = []
        for color in GENEVAL_COLORS:
            texts = [f"a photo of a {color} traffic light", f"a photo of a {color}-colored traffic light"]
            texts.append(f"a photo of a {color} object")
            mean = normalize(model.encode_text(tokenize(texts)), dim=-1).mean(dim=0)
            columns.append(mean / mean.norm())
        answers = []
        for image in images:
            crops = torch.stack([transform(cut_out(image, found, index)) for index in (1, 0)])
            logits = 100 * normalize(model.encode_image(crops), dim=-1) @ torch.stack(columns, dim=1)
            answers.append([GENEVAL_COLORS[index] for index in logits.argmax(dim=1)])
    assert [classify(image, found, [1, 0]) for image in images] == answers
    torch.testing.assert_close(classify._texts("traffic light"), torch.stack(columns))
    assert classify(images[0], found, []) == []


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("clipp", {}, "did you mean 'clip'"),
        ("hue", {}, "clip, nearest"),
        ("clip", {"device": "gpu"}, "'cpu', 'cuda'"),
        ("clip", {"pretrain": "a"}, "did you mean 'pretrained'"),
        ("nearest", {"prototypes": {}}, "no prototypes"),
        ("nearest", {"prototypes": {"red": [1, 2]}}, "'red'"),
        ("nearest", {"prototypes": {"red": [1, 2, 300]}}, "0 to 255"),
    ],
)
def test_bad_options_are_refused(name, options, message):
    for call in (build_colors, color_names):
        with pytest.raises(RewardError, match=message):
            call(name, **options)


def test_names_of_colours_are_known_before_a_model_loads():
    assert color_names("clip") == color_names("nearest") == GENEVAL_COLORS
    assert color_names("nearest", prototypes={"coal": [0, 0, 0]}) == ("coal",)
