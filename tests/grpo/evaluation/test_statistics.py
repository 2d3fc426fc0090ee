"""Bootstrap intervals against the normal ones, by stratum, and of paired differences."""

import numpy as np
import pytest

from blip3o_grpo.evaluation.statistics import bootstrap_interval, stratified_mean


def test_the_interval_covers_the_mean_and_matches_the_normal_one():
    values = np.random.default_rng(0).normal(0.5, 0.2, 400)
    low, high = bootstrap_interval(values)
    half = 1.96 * values.std() / 20
    assert low == pytest.approx(values.mean() - half, abs=0.003)
    assert high == pytest.approx(values.mean() + half, abs=0.003)
    assert bootstrap_interval(values) == (low, high)


def test_strata_weigh_the_same_whatever_their_size():
    assert stratified_mean([1.0] * 99, [0.0]) == 0.5
    assert bootstrap_interval([1.0] * 99, [0.0]) == (0.5, 0.5)  # nothing varies within a stratum


def test_strata_of_different_spread_give_the_normal_interval_of_their_mean():
    generator = np.random.default_rng(1)
    wide, narrow = generator.normal(0, 1, 300), generator.normal(1, 0.1, 100)
    low, high = bootstrap_interval(wide, narrow)
    half = 1.96 * np.sqrt(wide.var() / 300 + narrow.var() / 100) / 2
    assert (high - low) / 2 == pytest.approx(half, rel=0.05)


def test_paired_differences_see_a_change_that_two_intervals_hide():
    generator = np.random.default_rng(2)
    before = generator.uniform(0, 1, 60)
    after = before + generator.normal(0.05, 0.02, 60)
    assert bootstrap_interval(before)[1] > bootstrap_interval(after)[0]  # the intervals of the means overlap
    assert bootstrap_interval(after - before)[0] > 0.04


def test_a_policy_minus_itself_is_exactly_zero():
    values = np.random.default_rng(3).uniform(0, 1, 50)
    assert bootstrap_interval(values - values) == (0.0, 0.0)
