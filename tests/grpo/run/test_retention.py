"""Which checkpoints stay: the measure of a run, what counts for it, and ties."""

import pytest

from blip3o_grpo.configs import RunConfig
from blip3o_grpo.run.retention import checkpoint_score, heldout_score, superfluous

TRAINING = [{"step": step, "reward/mean": step / 10} for step in range(1, 7)]


def config(*, every=2, evaluated=0, rewards=({"name": "ocr"},), gold=()):
    return RunConfig.model_validate(
        {
            "run_dir": "run",
            "policy": {"path": "policy"},
            "prompts": {"train": "train.txt", "heldout": "heldout.txt"},
            "rewards": list(rewards),
            "checkpoint": {"every_steps": every},
            "evaluation": {"every_steps": evaluated},
            "guards": {"gold": list(gold)},
        }
    )


def test_without_evaluations_it_is_the_mean_reward_since_the_last_checkpoint():
    assert checkpoint_score(TRAINING, config(), 6) == pytest.approx((0.5 + 0.6) / 2)
    assert checkpoint_score(TRAINING, config(every=3), 6) == pytest.approx((0.4 + 0.5 + 0.6) / 3)
    assert checkpoint_score(TRAINING, config(), 4) == pytest.approx(0.35)  # later steps do not count
    assert checkpoint_score(TRAINING, config(every=25), 6) == pytest.approx(0.35)  # the first checkpoint


def test_steps_without_a_reward_do_not_count():
    gaps = [
        {"step": 5, "reward/mean": float("nan")},
        {"step": 5, "reward/mean": None},
        {"step": 5},
        {"step": 6, "train_runtime": 9.0},
        {"step": 6, "reward/mean": 1},
    ]
    assert checkpoint_score(gaps, config(), 6) == 1
    assert checkpoint_score(gaps[:4], config(), 6) is None


REWARDS = ({"name": "ocr", "weight": 2.0}, {"name": "guard", "weight": 0.5}, {"name": "clip", "weight": 0.0})


def test_with_evaluations_it_is_the_weighted_held_out_reward_of_that_very_step():
    history = [*TRAINING, {"step": 4, "heldout/ocr": 0.75, "heldout/guard": 0.5, "heldout/clip": 9.0}]
    evaluated = config(evaluated=4, rewards=REWARDS)
    assert checkpoint_score(history, evaluated, 4) == pytest.approx(2 * 0.75 + 0.5 * 0.5)
    assert checkpoint_score(history, evaluated, 6) is None
    assert checkpoint_score(history, config(), 4) == pytest.approx(0.35)  # without: the training reward
    assert heldout_score([{"step": 4, "heldout/ocr": 0.5}], evaluated, 4) == 1.0  # the guard had nothing to score
    assert heldout_score([{"step": 4, "heldout/clip": 0.5}], evaluated, 4) is None  # weighs nothing
    assert heldout_score([{"step": 3, "heldout/ocr": 0.5}], evaluated, 4) is None


def test_with_gold_it_is_the_mean_of_the_gold_rewards():
    rewards = (*REWARDS, {"name": "exact", "type": "ocr", "weight": 0.0})
    history = [{"step": 4, "heldout/ocr": 0.75, "heldout/guard": 0.5, "heldout/clip": 0.25, "heldout/exact": 0.75}]
    of = {gold: config(evaluated=4, rewards=rewards, gold=gold) for gold in (("clip",), ("clip", "exact"))}
    assert [checkpoint_score(history, asked, 4) for asked in of.values()] == [0.25, 0.5]
    assert checkpoint_score(history, of["clip",], 6) is None


def test_the_newest_and_the_best_stay():
    scores = {2: 0.9, 4: 0.1, 6: 0.5, 8: None, 10: 0.2}
    assert superfluous(scores, keep=1, keep_best=1) == [4, 6, 8]
    assert superfluous(scores, keep=2, keep_best=2) == [4]
    assert superfluous(scores, keep=5, keep_best=0) == []
    assert superfluous(scores, keep=2, keep_best=0) == [2, 4, 6]
    assert superfluous({4: 0.1, 2: 0.3, 6: None}, keep=1, keep_best=1) == [4]  # in any order


def test_of_equal_scores_the_newer_counts_more_and_none_never_wins():
    assert superfluous({1: 0.5, 2: 0.5, 3: None}, keep=1, keep_best=1) == [1]
    assert superfluous({1: -0.5, 2: None, 3: None}, keep=1, keep_best=1) == [2]
    assert superfluous({1: 0.5, 2: None, 3: None}, keep=1, keep_best=0) == [1, 2]
