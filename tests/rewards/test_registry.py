"""Rewards are found by name or `module:name`, lazily, and mistakes come back as one helpful sentence."""

from __future__ import annotations

import subprocess
import sys

import pytest

from blip3o_grpo.rewards import RewardError, available_rewards, build_reward, find_reward
from blip3o_grpo.rewards.guard.reference import ReferenceGuard

PLUG_IN = """
class Brightness:
    def __init__(self, scale: float = 1.0):
        self.scale = scale

    def __call__(self, batch):
        return [self.scale * float(image.mean()) / 255 for image in batch.images]


class NotCallable:
    pass


brightness = 3
"""


@pytest.fixture
def plug_in(tmp_path, monkeypatch):
    """A module `my_rewards` outside the project, and a broken one."""
    (tmp_path / "my_rewards.py").write_text(PLUG_IN)
    (tmp_path / "broken_rewards.py").write_text("import a_package_that_is_not_installed\n")
    monkeypatch.syspath_prepend(str(tmp_path))


def test_built_in_rewards_are_registered():
    assert {"ocr", "reference_guard"} <= set(available_rewards())
    assert find_reward("reference_guard").target is ReferenceGuard


def test_a_class_anywhere_can_be_used(plug_in):
    assert build_reward("my_rewards:Brightness", {"scale": 2.0}).scale == 2.0


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("orc", "unknown reward 'orc'; did you mean 'ocr'?"),
        ("reference_gard", "did you mean 'reference_guard'?"),
        ("qqqqqq", "known rewards: .*ocr"),
        ("my_rewards:Brightnes", "did you mean my_rewards:Brightness?"),
        ("my_rewards:brightness", "must be a class whose instances can be called, or a function, not 3"),
        ("my_rewards:NotCallable", "must be a class whose instances can be called"),
        ("my_rewardz:Brightness", "importing 'my_rewardz' failed: ModuleNotFoundError"),
        ("broken_rewards:Any", "No module named 'a_package_that_is_not_installed'"),
    ],
)
def test_mistakes_are_named(plug_in, target, message):
    with pytest.raises(RewardError, match=message):
        find_reward(target)


def test_option_typos_are_named(plug_in):
    with pytest.raises(RewardError, match="my_rewards:Brightness.*did you mean 'scale'"):
        build_reward("my_rewards:Brightness", {"scael": 2.0})


def test_a_reward_without_opinion_applies_to_every_prompt(plug_in):
    assert find_reward("my_rewards:Brightness").applies("anything", {})


def test_looking_rewards_up_loads_no_model_library():
    """The driver checks prompts and options of all rewards before a single model library is imported."""
    code = (
        "import sys; from blip3o_grpo.rewards import find_reward;"
        "find_reward('reference_guard'); find_reward('ocr').check_options({'variant': 'ned'});"
        "assert find_reward('ocr').applies('says \"A\"', {});"
        "loaded = {'torch', 'paddleocr', 'paddlex', 'onnxruntime', 'ray', 'transformers'} & set(sys.modules);"
        "assert not loaded, loaded"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
