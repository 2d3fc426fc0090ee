"""The tiny world: splits never overlap, pictures show what captions say, and can be read back."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest

from blip3o_grpo import configs
from blip3o_grpo.policies.tiny_world import world
from scripts.tiny_build.measure import shapes_as_asked, shapes_as_drawn

PROMPTS = Path(configs.__file__).parent / "prompts"


@pytest.mark.parametrize("tag", ["sign", *world.TAGS])
def test_the_splits_share_no_word_and_no_combination(tag):
    rng = random.Random(0)
    train = {world.sample(rng, heldout=False, tag=tag).key for _ in range(500)}
    heldout = {world.sample(rng, heldout=True, tag=tag).key for _ in range(100)}
    assert not train & heldout


def test_the_shipped_prompt_files_respect_the_split():
    for name, heldout in (("train", False), ("heldout", True)):
        lines = (PROMPTS / f"tiny_ocr_{name}.jsonl").read_text(encoding="utf-8").splitlines()
        assert len(lines) >= 128
        assert all(world.is_heldout(f"word:{json.loads(line)['target_text']}") == heldout for line in lines)


def test_drawing_is_reproducible():
    first, second = (world.sample(random.Random(5), heldout=False) for _ in range(2))
    assert first == second
    assert np.array_equal(world.render(first), world.render(second))
    assert world.render(first).shape == (56, 56, 3)


def test_shapes_read_back_exactly():
    rng = random.Random(1)
    scenes = [world.sample(rng, heldout=False, tag=world.TAGS[i % 6]) for i in range(300)]
    images = [world.render(scene) for scene in scenes]
    assert min(shapes_as_drawn(images, scenes)) == 1.0
    assert min(shapes_as_asked(images, scenes)) == 1.0


def test_a_wrong_picture_is_not_what_was_asked():
    rng = random.Random(2)
    for tag in world.TAGS[1:]:
        scene = world.sample(rng, heldout=False, tag=tag)
        empty = np.full((56, 56, 3), 250, np.uint8)
        assert shapes_as_asked([empty], [scene]) == [0.0]
