"""Held-out summaries by hand, and picture grids a person can read."""

import numpy as np
import pytest

from configs import RewardSection
from grpo.evaluation import Evaluation, bootstrap_interval, summarise
from grpo.grids import draw_grid, save_grid
from rollout import Completion, Prompt, Rollout, RolloutGroup


def group(name, scores):
    completion = Completion(np.zeros(4, np.int32), np.zeros(4, np.float32), 0, 0)
    image = np.full((56, 56, 3), 255, np.uint8)
    image[:28] = (200, 0, 0)
    rollouts = tuple(Rollout(completion, image, {"ocr": score, "guard": 1.0}) for score in scores)
    return RolloutGroup(Prompt(name, f'a sign that says "{name}"'), [1], rollouts)


def test_means_are_over_prompts_of_means_over_images_and_none_is_left_out():
    groups = [group("a", [0.0, 1.0]), group("b", [1.0, None]), group("c", [None, None])]
    evaluation = summarise(groups, [RewardSection(name="ocr")], 3)
    assert evaluation.per_prompt == {"a": {"ocr": 0.5}, "b": {"ocr": 1.0}, "c": {"ocr": None}}
    assert evaluation.means == {"ocr": 0.75}
    assert (evaluation.num_prompts, evaluation.images_per_prompt, evaluation.step) == (3, 2, 3)


def test_the_interval_covers_the_mean_and_matches_the_normal_one():
    values = np.random.default_rng(0).normal(0.5, 0.2, 400)
    low, high = bootstrap_interval(values)
    half = 1.96 * values.std() / 20
    assert low == pytest.approx(values.mean() - half, abs=0.003)
    assert high == pytest.approx(values.mean() + half, abs=0.003)
    assert bootstrap_interval(values) == (low, high)


def test_an_evaluation_survives_its_file(tmp_path):
    evaluation = summarise([group("a", [0.0, 1.0])], [RewardSection(name="ocr"), RewardSection(name="guard")], 0)
    evaluation.save(tmp_path / "evaluations/before.json")
    loaded = Evaluation.load(tmp_path / "evaluations/before.json")
    assert loaded.means == evaluation.means
    assert loaded.per_prompt == evaluation.per_prompt


def test_a_grid_shows_captions_and_sharp_enlarged_images(tmp_path):
    save_grid(tmp_path / "grids/before.png", [group("a", [0.0, 1.0]), group("b", [1.0, 0.5])])
    assert (tmp_path / "grids/before.png").stat().st_size > 1000
    picture = np.asarray(draw_grid([("caption", [group("a", [0.0]).rollouts[0].image], ())]))
    assert (picture == (200, 0, 0)).all(-1).sum() == 168 * 84  # 56 px enlarged 3 times, top half red, no blur
    assert (picture[:28] < 128).any()  # the caption
