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


def gray(image):
    return image @ np.array([0.299, 0.587, 0.114])


def entropy(image):
    _, counts = np.unique(image.reshape(-1, 3) // 64, axis=0, return_counts=True)
    shares = counts / counts.sum()
    return -(shares * np.log(shares)).sum() / np.log(64)


def distance(images):
    """Of images that thumbnails show as they are."""
    pairs = [((a.astype(float) - b) ** 2).mean() for a, b in combinations(images, 2)]
    return np.sqrt(np.mean(pairs)) / 255


MEANINGS = {
    "mean pixel": lambda images: np.mean(images) / 255,
    "standard deviation of the pixels inside an image": lambda images: np.mean([i.std() for i in images]) / 255,
    "mean step between neighbouring pixels": lambda images: (
        np.mean([np.abs(np.diff(gray(image), axis=axis)).mean() for image in images for axis in (0, 1)]) / 255
    ),
    "mean distance between the strongest and the weakest colour channel": lambda images: (
        np.mean([np.ptp(image.astype(float), axis=2).mean() for image in images]) / 255
    ),
    "entropy of the coarse colours, 1: all equally frequent": lambda images: np.mean([entropy(i) for i in images]),
    "root mean square distance between the images of a group": distance,
}
"""What a reader of a warning or a report is told that a signal is."""


def test_each_signal_is_what_its_words_say():
    generator = np.random.default_rng(0)
    coarse = [generator.integers(0, high, (16, 16, 3), dtype=np.uint8) for high in (256, 256, 200, 120, 60)]
    images = [image.repeat(4, axis=0).repeat(4, axis=1) for image in coarse]
    signals = mean_signals(group(*images))
    assert list(signals) == list(IMAGE_SIGNALS)
    for name, meaning in IMAGE_SIGNALS.items():
        close = {"image/edges": 2e-3}.get(name, 1e-6)  # gray values are whole numbers
        assert signals[name] == pytest.approx(MEANINGS[meaning](images), abs=close), name


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


def test_larger_images_are_averaged_to_64_pixels_and_smaller_ones_drawn_out():
    board = np.tile([[0, 254], [254, 0]], (64, 64))  # 128 x 128, single pixels
    large = np.repeat(board[..., None], 3, axis=2).astype(np.uint8)
    signals = mean_signals(group(large))
    assert signals["image/brightness"] == pytest.approx(127 / 255)
    assert signals["image/contrast"] == signals["image/edges"] == 0
    stripes = np.tile(np.array([254, 0, 0, 254], np.uint8), 64)[None, :, None].repeat(256, axis=0).repeat(3, axis=2)
    signals = mean_signals(group(stripes))  # 256 x 256: all four pixels count, not the two in the middle alone
    assert signals["image/brightness"] == pytest.approx(127 / 255) and signals["image/contrast"] == 0
    halves = np.zeros((2, 2, 3), np.uint8)
    halves[:, 1] = 255
    signals = mean_signals(group(halves))  # a quarter of black, a ramp over half of the pixels, a quarter of white
    assert signals["image/edges"] == pytest.approx(1 / 63 / 2, rel=0.02)
    assert signals["image/contrast"] == pytest.approx(np.sqrt(1 / 2 * 1 / 4 + 1 / 2 * 1 / 12), abs=2e-3)


def test_edges_are_the_mean_of_steps_across_and_down():
    ramp = np.repeat(np.arange(64, dtype=np.uint8)[None, :, None] * 2, 64, axis=0).repeat(3, axis=2)
    assert mean_signals(group(ramp))["image/edges"] == pytest.approx(2 / 255 / 2)
    assert mean_signals(group(ramp.transpose(1, 0, 2).copy()))["image/edges"] == pytest.approx(2 / 255 / 2)
    falling = 200 - ramp
    assert mean_signals(group(falling))["image/edges"] == pytest.approx(2 / 255 / 2)


def test_entropy_counts_four_levels_of_each_channel():
    levels = np.array([0, 64, 128, 192], np.uint8)
    colours = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(1, 64, 3)
    every = np.repeat(colours, 64, axis=0)
    assert mean_signals(group(every))["image/entropy"] == pytest.approx(1)
    assert mean_signals(group(every + np.uint8(63)))["image/entropy"] == pytest.approx(1)  # the tops of the levels
    for channel in range(3):
        two = flat(0, 0, 0)
        two[:32, :, channel] = 64
        assert mean_signals(group(two))["image/entropy"] == pytest.approx(1 / 6)  # log 2 / log 64
        two[:32, :, channel] = 63
        assert mean_signals(group(two))["image/entropy"] == 0


def test_diversity_looks_at_thumbnails_of_16_pixels():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[::2] = 200
    assert mean_signals(group(stripes, np.roll(stripes, 1, axis=0)))["image/diversity"] == 0  # alike in each 4 x 4
    blocks = np.zeros((64, 64, 3), np.uint8)
    blocks[:4] = 255
    moved = np.roll(blocks, 4, axis=0)
    assert mean_signals(group(blocks, moved))["image/diversity"] == pytest.approx(np.sqrt(2 / 16))
    assert mean_signals(group(flat(0, 0, 0), flat(51, 51, 51)))["image/diversity"] == pytest.approx(0.2)


def test_an_erased_background_shows():
    generator = np.random.default_rng(1)
    textured = np.clip(generator.normal((200, 60, 90), 40, (64, 64, 3)), 0, 255).astype(np.uint8)
    erased = flat(255, 255, 255)
    erased[28:36, 10:54] = 0
    before, after = mean_signals(group(textured, textured)), mean_signals(group(erased, erased))
    for name in ("image/saturation", "image/entropy", "image/edges"):
        assert after[name] < before[name] / 1.5, name
