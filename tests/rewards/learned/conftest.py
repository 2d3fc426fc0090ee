"""Pictures to score, and a cache of the Hugging Face hub that holds what a test puts into it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from blip3o_grpo.rewards import RewardBatch


@pytest.fixture(scope="session")
def pictures() -> Callable[..., RewardBatch]:
    """A function that makes `count` images of different sizes and smooth content, with these prompts in turn."""

    def make(count: int, *prompts: str) -> RewardBatch:
        generator = np.random.default_rng(0)
        prompts = prompts or ("a cat", "a red car", "two dogs on a sofa")
        images = []
        for index in range(count):
            corners = generator.integers(0, 256, (2, 2, 3)).astype(np.uint8)
            images.append(corners.repeat(16 + index, axis=0).repeat(20, axis=1))
        return RewardBatch(images, [prompts[index % len(prompts)] for index in range(count)], [{}] * count)

    return make


@pytest.fixture
def hub_cache(tmp_path, monkeypatch) -> Callable[..., Path]:
    """A function that puts files into an empty cache under a repository's name, and returns their folder."""
    import huggingface_hub.constants

    cache = tmp_path / "hub"
    cache.mkdir()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))

    def put(repository: str, *files: Path, revision: str = "main") -> Path:
        folder = cache / f"models--{repository.replace('/', '--')}"
        (folder / "refs").mkdir(parents=True, exist_ok=True)
        (folder / "refs" / revision).write_text("abc")
        (folder / "snapshots" / "abc").mkdir(parents=True, exist_ok=True)
        for file in files:
            shutil.copy(file, folder / "snapshots" / "abc")
        return folder / "snapshots" / "abc"

    return put
