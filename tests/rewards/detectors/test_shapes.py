"""The shape detector against what was drawn: precision and recall, also through noise and blur."""

from __future__ import annotations

import random

import cv2
import numpy as np
import pytest

from blip3o_grpo.policies.tiny_world import world
from blip3o_grpo.rewards.detectors import build_detector

NUM_PICTURES = 2000


@pytest.fixture(scope="module")
def scenes():
    rng = random.Random(1)
    return [world.shapes(rng, world.TAGS[i % len(world.TAGS)]) for i in range(NUM_PICTURES)]


def drawn_boxes(scene: world.Scene) -> list[tuple[str, np.ndarray]]:
    """Kind and tight box of every shape."""
    found = []
    for shape in scene.shapes:
        mask = np.asarray(world.shape_mask(shape.kind)) > 127
        rows, columns = np.where(mask.any(1))[0], np.where(mask.any(0))[0]
        x, y = shape.cell[0] * world.CELL, shape.cell[1] * world.CELL
        found.append((shape.kind, np.array([x + columns[0], y + rows[0], x + columns[-1] + 1, y + rows[-1] + 1])))
    return found


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two boxes."""
    size = np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None)
    shared = size.prod()
    return shared / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - shared)


def precision_and_recall(scenes, images) -> tuple[float, float]:
    """Of detections that match a drawn shape of their kind with at least half of the box."""
    hits = seen = drawn = 0
    for scene, found in zip(scenes, build_detector("shapes")(images), strict=True):
        left = list(range(len(found)))
        for kind, box in drawn_boxes(scene):
            match = [i for i in left if found.classes[i] == kind and overlap(box, found.boxes[i]) > 0.5]
            if match:
                left.remove(match[0])
                hits += 1
        seen += len(found)
        drawn += len(scene.shapes)
    return hits / seen, hits / drawn


def test_every_drawn_shape_is_found(scenes):
    precision, recall = precision_and_recall(scenes, [world.render(scene) for scene in scenes])
    assert precision >= 0.99
    assert recall >= 0.99


DISTURBANCES = {
    "noise of 8": lambda image, noise: image + 8 * noise,
    "noise of 24": lambda image, noise: image + 24 * noise,
    "blur of 0.6 px": lambda image, noise: cv2.GaussianBlur(image, (0, 0), 0.6),
    "blur of 0.6 px and noise of 10": lambda image, noise: cv2.GaussianBlur(image, (0, 0), 0.6) + 10 * noise,
}


@pytest.mark.parametrize("name", DISTURBANCES)
def test_noise_and_blur_are_no_obstacle(scenes, name):
    some = scenes[:400]
    generator = np.random.default_rng(0)
    images = [
        np.clip(DISTURBANCES[name](image, generator.standard_normal(image.shape)), 0, 255).astype(np.uint8)
        for image in (world.render(scene) for scene in some)
    ]
    precision, recall = precision_and_recall(some, images)
    assert precision >= 0.99
    assert recall >= 0.99


def test_larger_pictures_are_found_too(scenes):
    some = scenes[:100]
    images = [cv2.resize(world.render(scene), None, fx=4, fy=4, interpolation=cv2.INTER_CUBIC) for scene in some]
    for scene, found in zip(some, build_detector("shapes")(images), strict=True):
        assert sorted(found.classes) == sorted(shape.kind for shape in scene.shapes)


@pytest.mark.parametrize("size", [(56, 56), (1, 1), (3, 200)])
def test_a_plain_picture_holds_nothing(size):
    (found,) = build_detector("shapes")([np.full((*size, 3), 240, np.uint8)])
    assert len(found) == 0
    assert found.masks.shape == (0, *size)
