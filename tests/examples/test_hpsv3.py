"""What the HPSv3 example gives to the package, and what it takes from it. The package is a stand-in: it is not here."""

import importlib.util
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch

from blip3o_grpo.rewards import RewardBatch, check_reward

FILE = Path(__file__).parents[2] / "examples/hpsv3/hpsv3_reward.py"


class Inferencer:
    """Its `reward` gives mean and spread of each image: here the mean level, and twice that."""

    calls: list[int] = []

    def __init__(self, config_path=None, checkpoint_path=None, device="cuda"):
        self.made_with = (checkpoint_path, device)

    def reward(self, image_paths, prompts):
        assert len(image_paths) == len(prompts) and all(isinstance(prompt, str) for prompt in prompts)
        self.calls.append(len(prompts))
        levels = [float(np.asarray(image.convert("RGB")).mean()) for image in image_paths]
        return torch.tensor([[level, 2 * level] for level in levels])


@pytest.fixture
def module(monkeypatch):
    package = types.ModuleType("hpsv3")
    package.HPSv3RewardInferencer = Inferencer
    monkeypatch.setitem(sys.modules, "hpsv3", package)
    spec = importlib.util.spec_from_file_location("hpsv3_reward", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_is_a_reward_and_takes_the_mean(module):
    reward = module.HPSv3("weights.safetensors", device="cpu")
    assert reward._model.made_with == ("weights.safetensors", "cpu")
    levels = range(module.BATCH + 3)
    images = [np.full((4, 6, 3), level, np.uint8) for level in levels]
    batch = RewardBatch(images, ["a sign"] * len(images), [{}] * len(images))
    Inferencer.calls.clear()
    assert reward(batch) == list(levels) and Inferencer.calls == [module.BATCH, 3]
    check_reward(reward, batch)
