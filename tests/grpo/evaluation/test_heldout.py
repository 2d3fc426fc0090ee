"""Held-out summaries by hand, and picture grids a person can read."""

from types import SimpleNamespace

import numpy as np
import pytest
from transformers import TrainerState

from blip3o_grpo.configs import RewardSection
from blip3o_grpo.configs.schema import EvaluationSection, RolloutSection
from blip3o_grpo.evaluation import callback
from blip3o_grpo.evaluation.grids import draw_grid, save_grid
from blip3o_grpo.evaluation.heldout import Evaluation, collect_heldout, save_evaluation, summarise
from blip3o_grpo.rollout import Completion, Prompt, Rollout, RolloutBatch, RolloutError, RolloutGroup
from blip3o_grpo.run.folder import RunFolder


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


def test_an_evaluation_without_groups_is_an_error_and_no_number(tmp_path):
    config = SimpleNamespace(
        evaluation=EvaluationSection(), rollout=RolloutSection(), rewards=[RewardSection(name="ocr")]
    )
    pipeline = SimpleNamespace(collect=lambda *_, **__: RolloutBatch((), {}, skipped_groups=4))
    with pytest.raises(RolloutError, match="every group was dropped"):
        collect_heldout(pipeline, [], config)
    with pytest.raises(RolloutError, match="every group was dropped"):
        save_evaluation([], config, name="before", step=0, folder=RunFolder(tmp_path / "run"))
    assert not (tmp_path / "run" / "evaluations").exists()


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


def test_labels_stay_below_their_own_picture():
    image = np.zeros((56, 56, 3), np.uint8)
    label = "a_reward_with_a_long_name 0.25  another_long_one_of_them 0.50"
    few, many = (np.asarray(draw_grid([("caption", [image] * 3, [text] * 3)])) for text in ("ocr 1.00", label))
    assert many.shape[1] == few.shape[1] and many.shape[0] > few.shape[0]
    between = many[:, 8 + 168 + 1 : 8 + 168 + 7]  # right of the first picture and its label, where neighbours meet
    assert (between[30:] > 250).all()


def test_every_rank_gives_its_weights_and_rank_0_evaluates_them(make_config, tmp_path, monkeypatch):
    config = make_config(evaluation={"every_steps": 2}, trainer={"max_steps": 4})
    done, logged, told = [], {}, []
    found = Evaluation(2, 5, 1, {"target": 0.5}, {"target": (0.3, 0.7)}, {str(i): {"target": 0.5} for i in range(5)})

    def evaluated(pipeline, prompts, config, *, name, step, folder, progress):
        done.append(name)
        progress(1)
        return found

    monkeypatch.setattr(callback, "evaluate", evaluated)
    reporter = callback.HeldoutCallback(
        config,
        None,
        ["a", "b", "c"],
        RunFolder(tmp_path),
        sync_weights=lambda: done.append("sync"),
        add_metrics=logged.update,
        tell=told.append,
    )
    for main in (True, False):
        for step in range(1, 5):  # the last step's policy is evaluated when training is over
            reporter.on_step_end(None, TrainerState(global_step=step, is_world_process_zero=main), None)
    assert done == ["sync", "step-2", "sync"]
    interval = {"interval/heldout/target/low": 0.3, "interval/heldout/target/high": 0.7, "interval/heldout/target/n": 5}
    assert logged == {"heldout/target": 0.5, **interval}
    progress = [{"evaluating": 2, "done": done, "of": 3} for done in (0, 1)]
    assert told == [*progress, {"evaluation": found}]
