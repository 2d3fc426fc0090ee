"""Image signals against plain formulas, and against what they are there to notice."""

from itertools import combinations

import numpy as np
import pytest

from blip3o_grpo.rollout import Completion, Prompt, Rollout, RolloutGroup
from blip3o_grpo.run.image_signals import IMAGE_SIGNALS, image_signals


def group(*images):
    completion = Completion(np.zeros(2, np.int32), np.zeros(2, np.float32), 0, 0)
    return RolloutGroup(Prompt("p", "p"), [], tuple(Rollout(completion, image, {}) for image in images))


def mean_signals(*groups):
    total = sum(len(g.rollouts) for g in groups)
    return {name: value / total for name, value in image_signals(groups).items()}


def flat(*rgb, side=64):
    return np.full((side, side, 3), rgb, np.uint8)


def test_flat_images_have_no_contrast_edges_entropy_or_diversity():
    signals = mean_signals(group(flat(255, 255, 255), flat(255, 255, 255)))
    assert signals == pytest.approx({**dict.fromkeys(IMAGE_SIGNALS, 0.0), "image/brightness": 1.0})


def test_each_signal_against_its_plain_formula():
    generator = np.random.default_rng(0)
    images = [generator.integers(0, 256, (64, 64, 3), dtype=np.uint8) for _ in range(5)]
    signals = mean_signals(group(*images))
    assert signals["image/brightness"] == pytest.approx(np.mean(images) / 255, abs=1e-4)
    assert signals["image/contrast"] == pytest.approx(np.mean([image.std() for image in images]) / 255, abs=1e-4)
    ranges = [(image.max(axis=2).astype(int) - image.min(axis=2)).mean() / 255 for image in images]
    assert signals["image/saturation"] == pytest.approx(np.mean(ranges), abs=1e-4)
    assert signals["image/entropy"] == pytest.approx(1.0, abs=0.01)
    gray = [image @ np.array([0.299, 0.587, 0.114]) for image in images]
    steps = [(np.abs(np.diff(g, axis=0)).mean() + np.abs(np.diff(g, axis=1)).mean()) / 510 for g in gray]
    assert signals["image/edges"] == pytest.approx(np.mean(steps), abs=2e-3)


def test_diversity_is_the_distance_of_all_pairs():
    levels = [10, 60, 200, 250]
    pairs = [((a - b) / 255) ** 2 for a, b in combinations(levels, 2)]
    signals = mean_signals(group(*(flat(level, level, level) for level in levels)))
    assert signals["image/diversity"] == pytest.approx(np.sqrt(np.mean(pairs)), rel=1e-4)
    assert mean_signals(group(flat(1, 2, 3)))["image/diversity"] == 0


def test_means_weigh_every_image_alike_and_any_size_is_fine():
    small, large = group(flat(0, 0, 0)), group(*[flat(255, 0, 0, side=200)] * 3)
    signals = mean_signals(small, large)
    assert signals["image/saturation"] == pytest.approx(0.75)
    assert signals["image/brightness"] == pytest.approx(0.25)


def test_an_erased_background_shows():
    generator = np.random.default_rng(1)
    textured = np.clip(generator.normal((200, 60, 90), 40, (64, 64, 3)), 0, 255).astype(np.uint8)
    erased = flat(255, 255, 255)
    erased[28:36, 10:54] = 0
    before, after = mean_signals(group(textured, textured)), mean_signals(group(erased, erased))
    for name in ("image/saturation", "image/entropy", "image/edges"):
        assert after[name] < before[name] / 1.5, name
