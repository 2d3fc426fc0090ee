"""The guard leaves the starting policy's look alone and marks down the known ways of destroying it."""

from __future__ import annotations

import dataclasses
import random

import numpy as np
import pytest

from blip3o_grpo.policies.tiny_world import world
from blip3o_grpo.rewards import RewardBatch, RewardError, build_reward, check_reward
from blip3o_grpo.rewards.guard.image_statistics import STATISTICS, image_statistics
from blip3o_grpo.rewards.guard.reference import ReferenceGuard


def signs(seed: int, count: int) -> list[world.Scene]:
    generator = random.Random(seed)
    return [world.sign(generator) for _ in range(count)]


def batch_of(images: list[np.ndarray]) -> RewardBatch:
    return RewardBatch(images, ["a sign"] * len(images), [{}] * len(images))


@pytest.fixture(scope="module")
def guard() -> ReferenceGuard:
    guard = build_reward("reference_guard")
    guard.fit_reference(batch_of([world.render(scene) for scene in signs(0, 200)]))
    return guard


def mean_score(guard: ReferenceGuard, images: list[np.ndarray]) -> float:
    return float(np.mean(guard(batch_of(images))))


def test_new_images_of_the_same_kind_score_near_one(guard):
    """Other words, colours and places than in the reference must cost nothing: they are not the guard's business."""
    scores = guard(batch_of([world.render(scene) for scene in signs(1, 100)]))
    assert np.mean(scores) > 0.97 and np.quantile(scores, 0.05) > 0.9


@pytest.mark.parametrize("color", [(255, 255, 255), (0, 0, 0), (128, 128, 128)])
def test_erased_backgrounds_score_near_zero_although_the_sign_is_intact(guard, color):
    erased = [dataclasses.replace(scene, backdrop=(color, color)) for scene in signs(2, 40)]
    assert mean_score(guard, [world.render(scene) for scene in erased]) < 0.15


def test_losing_only_the_ground_is_noticed(guard):
    erased = [dataclasses.replace(scene, backdrop=(scene.backdrop[0],) * 2) for scene in signs(2, 40)]
    assert mean_score(guard, [world.render(scene) for scene in erased]) < 0.7


@pytest.mark.parametrize("level", [0, 128, 255])
def test_flat_images_score_near_zero(guard, level):
    assert mean_score(guard, [np.full((56, 56, 3), level, np.uint8)]) < 0.05


def test_the_score_falls_steadily_as_contrast_collapses(guard):
    images = [world.render(scene).astype(float) for scene in signs(3, 20)]
    scores = [
        mean_score(guard, [((image - 128) * strength + 128).astype(np.uint8) for image in images])
        for strength in (1.0, 0.9, 0.75, 0.5, 0.25, 0.0)
    ]
    assert scores[0] > 0.95 and scores[-1] < 0.05
    assert all(later < earlier for earlier, later in zip(scores, scores[1:], strict=False))


def test_oversaturated_images_and_noise_are_marked_down(guard):
    images = [world.render(scene).astype(float) for scene in signs(4, 20)]
    grey = [image.mean(axis=2, keepdims=True) for image in images]
    vivid = [np.clip(g + 2.5 * (image - g), 0, 255).astype(np.uint8) for image, g in zip(images, grey, strict=True)]
    noise = np.random.default_rng(0).integers(0, 256, (56, 56, 3), dtype=np.uint8)
    assert mean_score(guard, vivid) < 0.5
    assert mean_score(guard, [noise]) < 0.05


def test_explain_names_what_left_its_band(guard):
    (reasons,) = guard.explain(batch_of([np.zeros((56, 56, 3), np.uint8)]))
    assert "image.edges" in reasons and list(reasons.values()) == sorted(reasons.values(), reverse=True)


def test_guard_keeps_the_promises_of_a_reward(guard):
    check_reward(guard, batch_of([world.render(scene) for scene in signs(5, 6)]))
    check_reward(ReferenceGuard, batch_of([world.render(scene) for scene in signs(5, 10)]))


def test_state_moves_to_another_instance(guard):
    other = ReferenceGuard()
    other.load_state_dict(guard.state_dict())
    images = batch_of([world.render(scene) for scene in signs(6, 5)])
    assert other(images) == guard(images)
    with pytest.raises(RewardError, match="does not fit this version"):
        other.load_state_dict({"image.mean_red": [0, 1]})


def test_use_without_a_reference_and_too_few_images_are_refused():
    image = world.render(signs(0, 1)[0])
    with pytest.raises(RewardError, match="no reference yet"):
        ReferenceGuard()(batch_of([image]))
    with pytest.raises(RewardError, match="at least 8 images"):
        ReferenceGuard().fit_reference(batch_of([image] * 7))


def test_bad_options_are_refused():
    for options in ({"quantile": 0.3}, {"softness": 0}, {"min_width": -1}):
        with pytest.raises(RewardError):
            build_reward("reference_guard", options)


def test_statistics_of_images_worked_out_by_hand():
    """Half black, half red: mean 1/2 and contrast 1 in red only, two coarse colours in equal shares."""
    image = np.zeros((64, 64, 3), np.uint8)
    image[:, 32:, 0] = 255
    row = dict(zip(STATISTICS, image_statistics([image, image])[0], strict=True))
    assert row["image.mean_red"] == 0.5 and row["image.mean_green"] == 0
    assert row["image.contrast_red"] == 1 and row["image.contrast_blue"] == 0
    assert row["image.chroma"] == 0.5
    assert row["image.dominant_color"] == 0.5
    assert row["image.color_entropy"] == pytest.approx(np.log(2) / np.log(64))
    assert row["image.edges"] == pytest.approx(0.299 / 64)  # one step of the luminance of red per row of 64 pixels
    assert row["image.darkest"] == 0 and row["image.brightest"] == pytest.approx(0.299)
    assert image_statistics([]).shape == (0, len(STATISTICS))
