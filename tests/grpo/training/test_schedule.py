"""The prompt schedule can be repeated, extended and resumed."""

import pytest

from blip3o_grpo.training.schedule import prompt_schedule


def test_no_step_repeats_a_prompt_and_every_pass_is_a_new_order():
    schedule = prompt_schedule(num_prompts=10, prompts_per_step=4, num_batches=6, seed=1)
    steps = [schedule[i : i + 4] for i in range(0, len(schedule), 4)]
    assert len(steps) == 6
    assert all(len(set(step)) == 4 for step in steps)
    passes = [steps[0] + steps[1], steps[2] + steps[3], steps[4] + steps[5]]
    assert all(len(set(one)) == 8 for one in passes)  # 2 of 10 are left for later passes
    assert passes[0] != passes[1]


def test_the_schedule_of_a_seed_stays_the_same_over_versions():
    """A run that is resumed after an update goes on with the prompts it would have seen."""
    assert prompt_schedule(5, 2, 4, seed=3) == [4, 2, 1, 3, 3, 0, 2, 1]


def test_a_longer_run_starts_like_a_shorter_one():
    assert prompt_schedule(10, 4, 6, seed=1)[:8] == prompt_schedule(10, 4, 2, seed=1)
    assert prompt_schedule(10, 4, 2, seed=1) != prompt_schedule(10, 4, 2, seed=2)


@pytest.mark.parametrize("num_steps", [1, 2, 5])
def test_a_run_may_end_within_a_pass(num_steps):
    schedule = prompt_schedule(10, 4, num_steps, seed=1)
    assert len(schedule) == 4 * num_steps and set(schedule) <= set(range(10))


def test_a_step_may_take_all_prompts():
    assert sorted(prompt_schedule(4, 4, 3, seed=0)) == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]


def test_too_few_prompts_are_refused():
    with pytest.raises(ValueError, match="3 prompts cannot fill a step of 4"):
        prompt_schedule(3, 4, 1, seed=0)
