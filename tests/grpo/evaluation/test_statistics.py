"""Intervals of means over prompts: by hand, and against Student's and Welch's."""

import numpy as np
import pytest
from scipy import stats

from blip3o_grpo.evaluation.statistics import (
    NOTHING,
    Estimate,
    clip,
    constant_interval,
    estimate,
    expanded_tail,
    find_bounds,
    from_metrics,
    resampled_estimate,
    reward_metrics,
    stratified_mean,
    two_sided_p,
)


def test_normal_values_give_students_interval():
    for n in (4, 6, 40):
        values = np.random.default_rng(n).normal(5, 2, n)
        found, student = estimate(values), stats.ttest_1samp(values, 0).confidence_interval(0.95)
        assert found.mean == pytest.approx(values.mean()) and found.n == n
        width = student.high - student.low
        assert found.low <= student.low + 1e-9 and found.high >= student.high - 1e-9  # the wider one on either side
        assert found.low == pytest.approx(student.low, abs=(0.15 if n < 10 else 0.05) * width)
        assert found.high == pytest.approx(student.high, abs=(0.15 if n < 10 else 0.05) * width)
    assert estimate(values) == found
    assert estimate(values, seed=1) != found


def test_a_skewed_sample_reaches_further_to_its_long_side_than_students():
    values = np.array([0.0] * 27 + [10.0] * 3)
    student, found = stats.ttest_1samp(values, 0).confidence_interval(0.95), estimate(values)
    assert found.high > student.high + 0.1 and found.low == pytest.approx(student.low)


def test_fewer_than_four_prompts_have_no_interval():
    assert estimate([0.2, 0.4, 0.9]) == Estimate(pytest.approx(0.5), None, None, 3)
    assert estimate([0.2, 0.4, 0.9]).interval() == "no interval (n=3)"
    assert estimate([0.2, 0.4, 0.9, 0.5]).low is not None
    assert estimate([0.2, 0.4, 0.9], [0.5, 0.1]).low is not None  # three degrees of freedom
    assert estimate([0.2, 0.4], [0.9], [0.5, 0.1]).low is None
    assert resampled_estimate(lambda rows: 1.0, 3) == Estimate(1.0, None, None, 3)


def test_the_same_score_on_every_prompt_proves_no_rate_of_zero_or_one():
    kept = 0.05 ** (1 / 4)
    assert estimate([0.0] * 4) == Estimate(0.0, 0.0, pytest.approx(1 - kept), 4)
    assert estimate([1.0] * 4) == Estimate(1.0, pytest.approx(kept), 1.0, 4)
    half = estimate([0.5] * 4)
    assert (half.low, half.high) == pytest.approx((0.5 * kept, 1 - 0.5 * kept))
    change = estimate([0.0] * 50, paired=True)
    assert (change.low, change.high) == pytest.approx((0.05**0.02 - 1, 1 - 0.05**0.02))
    assert estimate([1.0] * 8, paired=True).direction == 1  # from wrong to right on all of eight prompts
    assert estimate([7.5] * 9) == Estimate(7.5, None, None, 9)  # what else such a score could be is unknown


def test_an_interval_stays_where_scores_can_be():
    found = estimate([0.0, 0.0, 0.0, 1.0])
    assert found.low == 0.0 and 0.9 < found.high <= 1.0
    assert estimate([0.0, 1.0, 1.0, 1.0]).high == 1.0
    assert estimate([-1.0, 1.0, 1.0, 1.0], paired=True).high == 1.0
    assert estimate([0.0, 0.0, 0.0, 1.5]).low < 0 and estimate([-0.5, 1.0, 1.0, 1.0]).high > 1
    assert find_bounds(np.array([0.0, 1.0]), False) == (0, 1) == find_bounds(np.array([0.5]), False)
    assert find_bounds(np.array([-0.1, 1.0]), False) is None and find_bounds(np.array([0.0, 1.1]), False) is None
    assert find_bounds(np.array([-1.0, 1.0]), True) == (-1, 1) and find_bounds(np.array([-1.1]), True) is None


def test_strata_weigh_the_same_whatever_their_size():
    assert stratified_mean([1.0] * 99, [0.0]) == 0.5
    found = estimate([1.0] * 99, [0.0])
    kept = 0.05**0.01
    assert (found.mean, found.n) == (0.5, 100)  # nothing varies within a stratum: as one sample of 100
    assert (found.low, found.high) == pytest.approx((0.5 * kept, 1 - 0.5 * kept))


def test_strata_of_different_spread_give_the_normal_interval_of_their_mean():
    generator = np.random.default_rng(1)
    wide, narrow = generator.normal(0, 1, 300), generator.normal(1, 0.1, 100)
    found = estimate(wide, narrow)
    half = 1.96 * np.sqrt(wide.var() / 300 + narrow.var() / 100) / 2
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.05)


def test_few_prompts_of_strata_give_welchs_interval():
    generator = np.random.default_rng(3)
    first, second = generator.normal(0, 3, 4), generator.normal(1, 1, 5)
    welch = stats.ttest_ind(first, -second, equal_var=False).confidence_interval(0.95)
    found = estimate(first, second)
    assert found.high - found.low == pytest.approx((welch.high - welch.low) / 2, rel=0.06)
    assert found.high - found.low >= (welch.high - welch.low) / 2 - 1e-9


def test_a_stratum_of_one_prompt_has_the_spread_of_the_others():
    values = np.random.default_rng(5).normal(0, 1, 40)
    pooled = values.var(ddof=1)
    found = estimate(values, [3.0])
    assert (found.high - found.low) / 2 == pytest.approx(stats.t.ppf(0.975, 39) * np.sqrt(pooled) / 2, rel=0.1)
    assert found.mean == pytest.approx((values.mean() + 3) / 2)


def test_paired_differences_see_a_change_that_two_intervals_hide():
    generator = np.random.default_rng(2)
    before = generator.uniform(0, 1, 60)
    after = before + generator.normal(0.05, 0.02, 60)
    assert estimate(before).high > estimate(after).low  # the intervals of the means overlap
    assert estimate(after - before, paired=True).low > 0.04


def test_a_direction_needs_an_interval_that_leaves_out_zero():
    directions = [((0.1, 0.3), 1), ((-0.3, -0.1), -1), ((-0.1, 0.3), 0), ((0.0, 0.3), 0), ((-0.3, 0.0), 0)]
    for (low, high), direction in directions:
        assert Estimate(0.2, low, high, 9).direction == direction
    assert Estimate(0.2, None, None, 2).direction == 0


def test_an_interval_in_words():
    assert Estimate(0.2, 0.1, 0.3, 9).interval() == "0.100 to 0.300"
    assert Estimate(0.2, -0.1, 0.3, 9).interval("+.2f") == "-0.10 to +0.30"
    assert Estimate(0.2, None, None, 3).interval() == "no interval (n=3)"
    assert Estimate(0.2, None, None, None).interval() == "no interval"
    assert Estimate(0.2, 0.1, 0.3, 9).interval_and_n() == "0.100 to 0.300, n=9"
    assert Estimate(0.2, 0.1, 0.3, None).interval_and_n("+.1f") == "+0.1 to +0.3"
    assert Estimate(0.2, None, None, 3).interval_and_n() == "no interval, n=3"
    assert Estimate(0.2, None, None, None).interval_and_n() == "no interval"
    assert str(Estimate(0.2, 0.1, 0.3, 9)) == "0.200 (0.100 to 0.300, n=9)"


@pytest.mark.parametrize(("low", "high"), [(0.1, None), (None, 0.3), (None, None)])
def test_half_an_interval_is_none(low, high):
    assert Estimate(0.2, low, high, 9).direction == 0
    assert Estimate(0.2, low, high, 9).interval() == "no interval (n=9)"


@pytest.mark.parametrize(
    "found", [Estimate(0.2, 0.1, 0.3, 9), Estimate(0.2, None, None, 3), Estimate(0.0, 0.0, 0.5, 4)]
)
def test_an_estimate_can_be_logged_beside_its_metric_and_read_again(found):
    logged = {"reward/mean": found.mean, **found.as_metrics("reward/mean")}
    assert logged["interval/reward/mean/n"] == found.n
    assert from_metrics(logged, "reward/mean") == found
    assert from_metrics({"reward/mean": 0.2}, "reward/mean") is None  # of an older version
    assert from_metrics({**logged, "reward/mean": None}, "reward/mean") is None
    assert Estimate(0.2, None, None, None).as_metrics("reward/mean") == {}


def test_values_that_differ_by_rounding_only_are_the_same():
    assert estimate([0.3, 0.1 + 0.2, 0.3, 0.3]).low == pytest.approx(0.3 * 0.05**0.25)
    assert estimate([1e6, 1e6 + 1e-7, 1e6, 1e6]) == Estimate(pytest.approx(1e6), None, None, 4)
    assert estimate([-1e6, -1e6 - 1e-7, -1e6, -1e6]).low is None
    spread = estimate([0.3, 0.3 + 1e-9, 0.3, 0.3])
    assert spread.high - spread.low < 1e-8


def test_the_range_of_scores_bounds_an_interval():
    assert clip(-0.2, 1.2, (0.0, 1.0)) == (0, 1) and clip(0.2, 0.8, (0.0, 1.0)) == (0.2, 0.8)
    assert clip(-0.2, 1.2, None) == (-0.2, 1.2)
    assert constant_interval(0.5, 4, None) is None
    assert constant_interval(0.25, 1, (0.0, 1.0)) == pytest.approx((0.25 * 0.05, 0.25 * 0.05 + 0.95))


@pytest.mark.parametrize("num_prompts", [4, 9, 50])
def test_the_expanded_tail_and_its_inverse(num_prompts):
    """Hesterberg 2015, section 5.3: Phi(sqrt(n / (n - 1)) t_{n-1, tail})."""
    tail = expanded_tail(0.025, num_prompts)
    by_hand = stats.norm.cdf(np.sqrt(num_prompts / (num_prompts - 1)) * stats.t.ppf(0.025, num_prompts - 1))
    assert tail == pytest.approx(by_hand) and tail < 0.025
    assert two_sided_p(np.array([tail, 0.5, 0.9, 1.0]), num_prompts) == pytest.approx([0.05, 1.0, 1.0, 1.0])


def test_a_statistic_that_is_no_mean_has_the_interval_of_its_resamples():
    values = np.random.default_rng(0).normal(0, 1, 60)
    found = resampled_estimate(lambda rows: float(values[rows].mean()), 60)
    half = stats.t.ppf(0.975, 59) * values.std(ddof=1) / np.sqrt(60)
    assert found.mean == pytest.approx(values.mean()) and found.n == 60
    assert (found.low, found.high) == pytest.approx((found.mean - half, found.mean + half), abs=0.06 * half)
    few = values[:4]
    wide = resampled_estimate(lambda rows: float(few[rows].mean()), 4)
    assert (wide.low, wide.high) == pytest.approx((few.min(), few.max()), abs=0.05)  # as far as resamples reach
    unknown = resampled_estimate(lambda rows: float("nan"), 9)
    assert np.isnan(unknown.mean) and (unknown.low, unknown.high) == (None, None)
    gaps = resampled_estimate(lambda rows: 1.0 if 0 in rows else float("nan"), 9)
    assert (gaps.low, gaps.high) == (1, 1)
    assert resampled_estimate(lambda rows: float(values[rows].mean()), 60, seed=0) == found
    assert resampled_estimate(lambda rows: float(values[rows].mean()), 60, seed=1) != found


def test_a_skewed_end_is_that_of_the_resamples_widened_for_few_prompts():
    """One of 256 resamples is four times the highest value, more than the tail of four prompts: 3.18 standard errors.

    A resample's distance from the mean is widened by sqrt(n / (n - 1)), here of 4.
    """
    widened = np.sqrt(4 / 3) * 7.5
    alone = estimate([0.0, 0.0, 0.0, 10.0])
    assert (alone.mean, alone.high) == (2.5, pytest.approx(2.5 + widened))
    error = 10 / 4  # standard deviation 5, of four prompts
    assert alone.low == pytest.approx(2.5 - stats.t.ppf(0.975, 3) * error)
    of_two = estimate([0.0, 0.0, 0.0, 10.0], [0.0, 0.0, 0.0, 0.0])
    assert (of_two.mean, of_two.high) == (1.25, pytest.approx(1.25 + widened / 2))
    mirrored = estimate([0.0, 0.0, 0.0, -10.0])
    assert (mirrored.low, mirrored.high) == pytest.approx((-alone.high, -alone.low))


def test_strata_of_two_and_three_prompts_have_welchs_interval_to_the_last_digit():
    """So few resamples reach no further than Student's interval does."""
    first, second = np.array([-3.0, 5.0]), np.array([2.0, 3.0, 4.0])
    variances, degrees = np.array([32 / 2, 1 / 3]) / 4, np.array([1, 2])
    free = variances.sum() ** 2 / (variances**2 / degrees).sum()
    half = stats.t.ppf(0.975, free) * np.sqrt(variances.sum())
    for strata in ((first, second), (second, first)):
        found = estimate(*strata)
        assert (found.mean, found.low, found.high) == pytest.approx((2, 2 - half, 2 + half))


def test_a_stratum_of_one_prompt_may_come_first():
    """Strata of 1, 3 and 3: the first one's variance is that of the others together, with their four degrees."""
    first, second = np.array([-2.0, 0.0, 2.0]), np.array([1.0, 1.5, 2.0])
    variances, degrees = np.array([8.5 / 4, 4 / 3, 0.25 / 3]) / 9, np.array([4, 2, 2])
    free = variances.sum() ** 2 / (variances**2 / degrees).sum()
    half = stats.t.ppf(0.975, free) * np.sqrt(variances.sum())
    found = estimate([3.0], first, second)
    assert found.mean == pytest.approx(1.5)
    assert (found.low, found.high) == pytest.approx((1.5 - half, 1.5 + half), abs=0.03 * half)


def test_strata_after_one_of_a_single_prompt_are_resampled_too():
    """What is skewed there reaches further to its long side than Student's interval, wherever the single one stands."""
    skewed, flat = [0.0, 0.0, 0.0, 40.0], [0.0] * 50
    variances, degrees = np.array([1200 / 52, 400 / 4]) / 9, np.array([52, 3])
    free = variances.sum() ** 2 / (variances**2 / degrees).sum()
    half = stats.t.ppf(0.975, free) * np.sqrt(variances.sum())
    for strata in (([5.0], skewed, flat), (skewed, flat, [5.0])):
        found = estimate(*strata)
        assert found.mean == 5 and found.low == pytest.approx(5 - half) and found.high > 5 + 1.02 * half


def test_what_rounding_leaves_apart_is_the_same_up_to_its_limit():
    just = estimate([-NOTHING / 2, NOTHING / 2, 0.0, 0.0], paired=True)
    assert just.high == pytest.approx(1 - 0.05**0.25)
    more = estimate([-0.75 * NOTHING, 0.75 * NOTHING, 0.0, 0.0], paired=True)
    assert more.high < 1e-9


def test_a_steps_rewards_have_intervals_over_the_prompts_that_they_apply_to():
    rows = [{"ocr": 0.25, "look": 0.5}, {"ocr": 0.5}, {"ocr": 0.25}, {"ocr": 0.5}, {"look": 0.75}]
    found, expected = reward_metrics(rows), estimate([0.25, 0.5, 0.25, 0.5])
    assert found == {
        "interval/reward/ocr/low": expected.low,
        "interval/reward/ocr/high": expected.high,
        "interval/reward/ocr/n": 4,
        "interval/reward/look/n": 2,
    }
    assert reward_metrics([]) == {}
