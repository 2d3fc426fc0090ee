"""Learned rewards answer on a GPU as they do on a CPU; needs no trained weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from blip3o_grpo.rewards import RewardBatch, load_reward
from tests.rewards.learned import published_imagereward
from tests.rewards.learned.test_aesthetic import write_head
from tests.rewards.learned.test_imagereward import write_tokenizer
from tests.rewards.learned.test_pickscore import write_clip, write_processor
from tests.rewards.tiny_clip import write_tiny_clip


@pytest.fixture
def options(tmp_path) -> dict[str, dict]:
    """Of every learned reward, on random weights of reduced size."""
    model, weights = write_tiny_clip(tmp_path)
    write_head(tmp_path / "head.pth")
    write_clip(tmp_path / "pickscore")
    write_processor(tmp_path / "processor")
    torch.save(published_imagereward.make_weights(), tmp_path / "ImageReward.pt")
    return {
        "aesthetic": {"weights": str(tmp_path / "head.pth"), "model": model, "pretrained": str(weights)},
        "hpsv2": {"weights": str(weights), "model": model},
        "imagereward": {
            "weights": str(tmp_path / "ImageReward.pt"),
            "tokenizer": write_tokenizer(tmp_path / "tokenizer"),
        },
        "pickscore": {"weights": str(tmp_path / "pickscore"), "processor": str(tmp_path / "processor")},
    }


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", ["aesthetic", "hpsv2", "imagereward", "pickscore"])
def test_a_gpu_scores_the_same(name, options, pictures):
    """Within a hundredth of the scores' range in float32, a tenth in bfloat16."""
    batch: RewardBatch = pictures(6)
    exact = np.array(load_reward(name, options[name]).score(batch))
    for dtype, share in (("float32", 0.01), ("bfloat16", 0.1)):
        found = load_reward(name, {**options[name], "device": "cuda", "dtype": dtype}).score(batch)
        np.testing.assert_allclose(np.array(found), exact, atol=share * np.ptp(exact))
