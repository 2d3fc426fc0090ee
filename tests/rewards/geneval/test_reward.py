"""GenEval as a reward: its two scores and their explanation agree, and bad options are found before a model loads."""

from __future__ import annotations

import random

import numpy as np
import pytest

from blip3o_grpo.configs import RunConfig
from blip3o_grpo.policies.tiny_world import world
from blip3o_grpo.rewards import RewardBatch, RewardError, adapt, check_reward
from blip3o_grpo.rewards.geneval.reward import GenEvalReward
from blip3o_grpo.validate import check_rewards

SHAPES = {"detector": "shapes", "colors": "nearest", "counting_threshold": 0.3}
NOTHING = np.full((56, 56, 3), 255, np.uint8)


@pytest.fixture(scope="module")
def batch() -> RewardBatch:
    """Per tag a picture of what its prompt asks for, an empty picture; and a prompt that is no record."""
    scenes = [world.shapes(random.Random(seed), tag) for seed, tag in enumerate(world.TAGS)]
    images = [world.render(scene) for scene in scenes] + [NOTHING] * len(scenes) + [NOTHING]
    records = [scene.metadata for scene in scenes] * 2 + [{"target_text": "OPEN"}]
    prompts = [scene.prompt for scene in scenes] * 2 + ['a sign that says "OPEN"']
    return RewardBatch(images, prompts, records)


@pytest.mark.parametrize("score", ["strict", "dense"])
def test_drawn_pictures_score_1_and_empty_ones_0(batch, score):
    scores = check_reward(GenEvalReward, batch, options={**SHAPES, "score": score}).scores
    assert scores == [1.0] * 6 + [0.0] * 6 + [None]


def test_explanations_come_with_the_scores_they_explain(batch, monkeypatch):
    reward = GenEvalReward(score="strict", **SHAPES)
    looks = []
    detector = reward._detector
    monkeypatch.setattr(reward, "_detector", lambda images: looks.append(len(images)) or detector(images))
    reward._detector.class_names = detector.class_names
    pairs = adapt(reward).explained_scores(batch)
    assert looks == [12]  # one look for both; the prompt without a record is not looked at
    assert [value for value, _ in pairs] == [1.0] * 6 + [0.0] * 6 + [None]
    assert pairs[-1][1] is None
    for value, explanation in pairs[:-1]:
        assert explanation["strict"] == value
        assert (explanation["reason"] == "") is (value == 1.0)
    x0, y0, x1, y1, score = next(iter(pairs[0][1]["found"].values()))[0]
    assert 0 <= x0 < x1 <= 56 and 0 <= y0 < y1 <= 56 and 0.3 < score <= 1


def test_a_reward_that_explains_nothing_scores_all_the_same(batch):
    class Constant:
        def __call__(self, batch):
            return [0.5] * len(batch)

    assert adapt(Constant()).explained_scores(batch[:2]) == [(0.5, None)] * 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"detector_options": {"folder": "/no/model"}}, r"'/no/model' is no model folder \(no config.json\)"),
        ({"detector_options": {}}, "missing a required argument: 'folder'"),
        ({"detector": "mmdet", "detector_options": {"checkpoint": "/no/weights.pth"}}, "weights.pth' does not exist"),
        ({"detector": "mmdet", "detector_options": {"chekpoint": "a"}}, "did you mean 'checkpoint'"),
        ({"detector": "ssd", "detector_options": {"folder": "a"}}, "detector ssd"),
        ({"detector": "shapes", "detector_options": {"folder": "a"}}, "detector shapes"),
        ({**SHAPES, "colors": "clipp"}, "did you mean 'clip'"),
        ({**SHAPES, "color_options": {"prototype": {}}}, "did you mean 'prototypes'"),
        ({**SHAPES, "colors": "clip", "color_options": {"pretrained": "/no/clip.pt"}}, "'/no/clip.pt' do not exist"),
        ({**SHAPES, "threshold": 1.5}, "threshold is 1.5"),
        ({**SHAPES, "score": "strikt"}, "unknown GenEval score 'strikt'"),
    ],
)
def test_bad_options_are_found_by_the_check_before_a_run(options, message):
    reward = {"name": "geneval", "options": options}
    prompts = {"train": "unused.txt", "heldout": "unused.txt"}
    with pytest.raises(RewardError, match=message):
        check_rewards(RunConfig.model_validate({"run_dir": "unused", "prompts": prompts, "rewards": [reward]}))


def test_a_missing_library_is_left_to_the_workers_to_miss(monkeypatch, tmp_path):
    """The check may run where nothing but the driver lives; a missing file is told there all the same."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *_: None)
    (tmp_path / "weights.pth").touch()
    options = {"detector": "mmdet", "detector_options": {"checkpoint": str(tmp_path / "weights.pth")}}
    GenEvalReward.check_options(**options, colors="clip", color_options={"pretrained": str(tmp_path / "weights.pth")})
    GenEvalReward.check_options(detector="ssd", colors="clip")
    with pytest.raises(RewardError, match="do not exist"):
        GenEvalReward.check_options(**options, colors="clip", color_options={"pretrained": "clip.pt"})


def test_an_incomplete_ssd_package_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr("blip3o_grpo.rewards.detectors.ssd.model_folder", lambda: tmp_path)
    with pytest.raises(RewardError, match="has no frozen_inference_graph.pb"):
        GenEvalReward.check_options(detector="ssd", colors="nearest")
