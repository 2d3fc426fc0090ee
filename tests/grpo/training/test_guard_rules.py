"""Guards as pure functions: each threshold on both sides, and what a run's metrics say with gaps and NaN in them."""

import math

import pytest

from blip3o_grpo.configs.guards import GuardsSection
from blip3o_grpo.training.guard_rules import no_spread, non_finite, reward_collapse, too_many_skips, unhealthy


def test_non_finite_numbers_are_named():
    assert non_finite(0.1, 2.0) is None
    assert non_finite(float("nan"), 2.0) == "the loss is nan"
    assert non_finite(0.0, float("inf")) == "the gradient norm is inf"
    assert non_finite(-math.inf, math.nan) == "the loss is -inf"


def test_skips_are_counted_in_a_row():
    history = [{"guards/skipped": value} for value in (1.0, 0.0, 1.0, 1.0)] + [{"train_runtime": 1.0}]
    assert not too_many_skips(history, 3)
    assert too_many_skips(history, 2) and too_many_skips(history, 1)
    assert too_many_skips([], 0) and not too_many_skips([], 1)
    assert not too_many_skips([{"guards/skipped": 0.0}], 1)


def test_a_collapse_is_a_long_fall_under_a_share_of_the_best():
    good = [0.2, 0.3, 0.5, 0.6, 0.6, 0.6]
    assert reward_collapse(good, 2, 0.5) is None
    assert reward_collapse([*good, 0.1], 2, 0.5) is None  # one bad step
    assert "of the last 2 steps is 0.1, under 0.5 of the best, 0.6" in reward_collapse([*good, 0.1, 0.1], 2, 0.5)
    assert reward_collapse([-1.0, -2.0, -9.0, -9.0], 2, 0.5) is None
    assert reward_collapse([0.0, 0.0, -9.0, -9.0], 2, 0.5) is None  # a best mean of 0 has no share
    assert reward_collapse([0.25, 0.25, -9.0, -9.0], 2, 0.5)


def test_a_collapse_needs_two_windows_and_a_mean_under_the_share():
    assert reward_collapse([1.0, 1.0, 0.0, 0.0], 2, 0.5)
    assert reward_collapse([1.0, 0.0, 0.0], 2, 0.5) is None
    assert reward_collapse([1.0, 1.0, 0.5, 0.5], 2, 0.5) is None  # just the share
    assert reward_collapse([1.0, 1.0, 0.5, 0.25], 2, 0.5)
    assert "the best, 1" in reward_collapse([1.0, 1.0, 0.1, 0.1, 0.1, 0.1], 2, 0.5)  # the first window counts too
    assert reward_collapse([0.0, 1.0, 0.2, 0.1], 1, 0.5) == (
        "the mean reward of the last 1 steps is 0.1, under 0.5 of the best, 1"
    )


def test_no_spread_needs_all_groups_for_the_whole_window():
    assert no_spread([1.0, 1.0], 3) is None
    assert no_spread([1.0, 0.9, 1.0, 1.0], 3) is None
    assert no_spread([1.0, 1.0, 0.9], 3) is None
    assert "for 3 steps" in no_spread([0.0, 1.0, 1.0, 1.0], 3)
    assert no_spread([1.0, 1.0, 1.0], 3)


FALLING = [{"reward/mean": value, "groups/without_spread": 0.0} for value in (1.0, 1.0, 0.1, 0.1)]
FLAT = [{"reward/mean": 0.5, "groups/without_spread": 1.0}] * 2


@pytest.mark.parametrize(
    ("lines", "key"), [(FALLING, "guards.reward_collapse"), (FLAT, "guards.no_spread"), (FALLING[:2], None)]
)
def test_a_run_that_learns_nothing_stops_with_the_key_that_lets_it_go_on(lines, key):
    reason = unhealthy(lines, GuardsSection(window_steps=2))
    assert reason is None if key is None else reason.endswith(f"({key})")
    if key:
        ignoring = GuardsSection(window_steps=2, **{key.removeprefix("guards."): "ignore"})
        assert unhealthy(lines, ignoring) is None


def test_the_share_and_the_window_are_the_sections_own():
    assert unhealthy(FALLING, GuardsSection(window_steps=2, reward_share=0.05)) is None
    assert unhealthy(FALLING, GuardsSection(window_steps=3)) is None
    assert "0.9 of the best" in unhealthy(FALLING, GuardsSection(window_steps=2, reward_share=0.9))


def test_lines_without_a_reward_and_values_that_are_no_number_do_not_count():
    gaps = [
        FALLING[0],
        {"eval_runtime": 1.0},
        {"reward/mean": None, "groups/without_spread": 1.0},
        {"reward/mean": math.nan},
        *FALLING[1:],
    ]
    assert unhealthy(gaps, GuardsSection(window_steps=2)).startswith("the mean reward of the last 2 steps is 0.1")
    assert unhealthy([*FLAT, {"reward/mean": 0.5}], GuardsSection(window_steps=2))  # of an older version, without it
    whole = [{"reward/mean": value} for value in (4, 4, 1, 1)]
    assert unhealthy(whole, GuardsSection(window_steps=2))  # JSON writes 4.0 as it likes
