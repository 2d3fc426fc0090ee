"""`rollout.curriculum`: prompts whose images differ come more often, and all others keep their share."""

from collections import Counter

import numpy as np
import pytest

from blip3o_grpo.configs.saving import CurriculumSection
from blip3o_grpo.rollout import read_rollouts
from blip3o_grpo.run.folder import RunFolder
from blip3o_grpo.training.curriculum import Curriculum
from blip3o_grpo.training.schedule import prompt_schedule

TAGS = ["a"] * 20 + ["b"] * 20


def curriculum(share=0.5, memory=0.5, size=4, batches=400, tags=TAGS, seed=0):
    return Curriculum(CurriculumSection(uniform_share=share, memory=memory), tags, size, batches, seed)


def test_before_anything_is_known_all_prompts_are_alike():
    picked = [sum(curriculum().pick(batch), []) for batch in range(50)]
    assert all(len(set(places)) == 4 for places in picked)
    assert curriculum().expected().tolist() == [1.0] * 40


def test_the_running_mean_is_that_of_the_groups_seen():
    """By hand: .4, then .5 * .4 + .5 * .2 = .3; a prompt not seen counts as its tag's mean, else as that of all."""
    ours = curriculum(tags=["a", "a", "a", "b"])
    ours.see([(0, 0.4), (1, 0.1)])
    ours.see([(0, 0.2)])
    np.testing.assert_allclose(ours.expected(), [0.3, 0.1, 0.2, 0.2])


def test_what_never_differs_keeps_a_chance():
    ours = curriculum(tags=["a", "a"])
    ours.see([(0, 0.0), (1, 0.5)])
    np.testing.assert_allclose(ours.expected(), [0.0025, 0.5])
    ours.see([(1, 0.0)] * 2000)
    assert ours.expected().tolist() == [1.0, 1.0]  # nothing differs anywhere


def test_prompts_that_differ_come_in_proportion_and_every_prompt_keeps_its_share():
    """One of 40 prompts has ten times the spread. Of 400 batches of 4, half is in turn: 20 times each, exactly."""
    ours = curriculum()
    ours.see([(place, 0.5 if place == 7 else 0.05) for place in range(40)])
    count = Counter(place for batch in range(400) for place in sum(ours.pick(batch), []))
    in_turn = Counter(prompt_schedule(40, 2, 400, 0))
    assert set(in_turn.values()) == {20}
    assert min(count.values()) >= 20
    others = np.mean([count[place] - 20 for place in range(40) if place != 7])
    assert (count[7] - 20) / others > 6  # drawn without replacement, two a batch: a little less than ten


@pytest.mark.parametrize(
    ("share", "size", "in_turn"), [(0.5, 4, 2), (0.1, 4, 1), (0.6, 4, 3), (0.5, 3, 2), (0.3, 10, 3)]
)
def test_at_least_the_share_comes_in_turn_and_the_file_may_be_no_larger_than_a_step(share, size, in_turn):
    turn, others = curriculum(share, size=size, tags=[None] * size).pick(0)
    assert len(turn) == in_turn and sorted(turn + others) == list(range(size))


def test_picks_follow_from_seed_batch_and_what_was_seen(tmp_path):
    first, second = curriculum(), curriculum()
    seen = [(3, 0.7), (25, 0.1), (9, 0.0)]
    for ours in (first, second):
        ours.see(seen)
    assert first.pick(5) == second.pick(5) != first.pick(6)
    first.save(tmp_path)
    third = curriculum()
    third.load(tmp_path)
    assert third.pick(5) == first.pick(5)
    np.testing.assert_array_equal(third.expected(), first.expected())
    assert curriculum(seed=1).pick(5) != first.pick(5)


RECIPE = {"curriculum": {"uniform_share": 0.5}, "prompts_per_step": 4, "record_every_steps": 1}


def drawn(config):
    return [(record["step"], record["prompt_id"]) for record in read_rollouts(config.run_dir)]


@pytest.mark.parametrize("staleness", [0, 1])
def test_a_run_that_is_resumed_draws_what_an_uninterrupted_one_does(make_config, run_toy, staleness):
    rollout, trainer = RECIPE | {"max_staleness": staleness}, {"max_steps": 6}
    whole, broken = (make_config(rollout=rollout, trainer=trainer) for _ in range(2))
    expected, *_ = run_toy(whole)
    folder = RunFolder(broken.run_dir)
    with pytest.raises(KeyboardInterrupt):
        run_toy(broken, stop_at=6)
    assert (folder.newest_checkpoint() / "curriculum.json").is_file()
    trainer, *_ = run_toy(broken)
    assert drawn(broken) == drawn(whole)
    for name, tensor in expected.model.state_dict().items():
        assert np.allclose(trainer.model.state_dict()[name], tensor, atol=1e-6), name


def test_a_prompt_without_spread_comes_less_often(make_config, run_toy):
    def reward(tokens, prompt):
        return 0.5 if prompt.id != "TAXI" else float((tokens < 32).mean())

    config = make_config(rollout=RECIPE, trainer={"max_steps": 12, "learning_rate": 1e-5})
    run_toy(config, reward=reward)
    count = Counter(prompt for step, prompt in drawn(config) if step > 4)
    assert count["TAXI"] == max(count.values()) >= 7 and len(count) == 8
