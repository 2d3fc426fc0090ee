"""The statistics of a study: by hand, and against Student's."""

import numpy as np
import pytest
from scipy import stats

from blip3o_grpo.evaluation.statistics import NOTHING, SeedSpread, expanded_tail, paired_bootstrap, seed_spread

NO_SPREAD = SeedSpread([0.0], 1.0)


def test_seeds_that_disagree_widen_the_interval_and_seeds_that_agree_do_not():
    rng = np.random.default_rng(4)
    noise = rng.normal(0, 0.2, (50, 2))
    noise -= noise.mean(axis=0)
    agreeing, disagreeing = noise + [0.1, 0.1], noise + [-0.1, 0.3]
    alone, apart = (paired_bootstrap([table], seed_spread([table], 1))[0] for table in (agreeing, disagreeing))
    assert alone.high - alone.low == pytest.approx(0.08, abs=0.03)  # 2 x 1.96 x 0.2 / sqrt(100)
    assert apart.high - apart.low > 1.0 and apart.p > 0.05 > alone.p  # one degree of freedom: Student's is wide
    together = seed_spread([agreeing, disagreeing], 2)
    assert 0 < together.variances[0] < together.variances[1] and together.degrees == 2
    assert together.variances[1] == pytest.approx(0.08, rel=0.3)  # variance of -0.1 and 0.3
    assert seed_spread([table[:, :1] for table in (agreeing, disagreeing)], 2).variances == [0, 0]
    assert seed_spread([agreeing, disagreeing, agreeing - disagreeing], 2).degrees == 2  # the third is not news


def test_normal_values_give_students_interval_and_p_value():
    generator = np.random.default_rng(2)
    values = generator.normal(0.3, 1.0, (12, 1))
    (estimate,) = paired_bootstrap([values], NO_SPREAD, num_resamples=200_000)
    student = stats.ttest_1samp(values[:, 0], 0)
    interval = student.confidence_interval(0.95)
    assert estimate.mean == pytest.approx(values.mean())
    assert (estimate.low, estimate.high) == pytest.approx((interval.low, interval.high), abs=0.08)
    assert estimate.p == pytest.approx(student.pvalue, rel=0.15)


def test_edge_cases():
    nothing = SeedSpread([0.0, 0.0], 1.0)
    same, shifted = paired_bootstrap([np.zeros((20, 2)), np.full((20, 2), 0.25)], nothing)
    kept = 0.05 ** (1 / 20)
    assert (same.mean, same.p) == (0, 1) and (same.low, same.high) == pytest.approx((kept - 1, 1 - kept))
    assert (shifted.low, shifted.high) == pytest.approx((1.25 * kept - 1, 1 - 0.75 * kept))
    assert shifted.p == pytest.approx(0.8**20)
    (outside,) = paired_bootstrap([np.full((20, 2), 3.0)], NO_SPREAD)  # of scores that are no shares of 1
    assert (outside.mean, outside.low, outside.high, outside.p) == (3, None, None, 1)
    (few,) = paired_bootstrap([np.ones((3, 1))], NO_SPREAD)
    assert (few.mean, few.low, few.high, few.n, few.p) == (1, None, None, 3, 1)
    values = [np.random.default_rng(0).normal(size=(30, 3))]
    assert paired_bootstrap(values, NO_SPREAD) == paired_bootstrap(values, NO_SPREAD)
    assert paired_bootstrap(values, NO_SPREAD, seed=1) != paired_bootstrap(values, NO_SPREAD)


def test_variance_of_seeds_beyond_chance_by_hand():
    """Means 0 and 1, or 0, 1 and 2; what is left of a row and a column is r, -r, and 0 of the third seed."""
    r = 0.3
    signs = np.array([1, -1, 1, -1])[:, None]
    two = np.array([0.0, 1.0]) + r * signs * [1, -1]
    three = np.array([0.0, 1.0, 2.0]) + r * signs * [1, -1, 0]
    of_two, of_three = 1 / 2 - 8 * r**2 / (3 * 1 * 4), 1 - 8 * r**2 / (3 * 2 * 4)
    assert seed_spread([two], 1) == SeedSpread([pytest.approx(of_two)], 1)
    pooled = (of_two + 2 * of_three) / 3
    both = seed_spread([two, three], 2)
    assert both.variances == pytest.approx([pooled, of_three]) and both.degrees == 3
    assert seed_spread([two, three, three], 2).degrees == pytest.approx(5 * 2 / 3)
    one = seed_spread([two[:, :1], three], 2)  # its own seed says nothing
    assert one.variances == pytest.approx([of_three, of_three]) and one.degrees == 2
    alike = signs * r * np.array([1, -1])  # seeds agree better than chance
    assert seed_spread([alike], 1).variances == [0]
    assert seed_spread([two[:3]], 1) == SeedSpread([0], 1)  # three prompts say nothing of it
    assert seed_spread([two[:, :1]] * 2, 2) == SeedSpread([0, 0], 1)


def spread_of(values, **options):
    return paired_bootstrap([np.array(values)[:, None]], NO_SPREAD, **options)[0]


def test_student_counts_below_ten_prompts_and_resamples_alone_from_there_on():
    for number in (4, 9):
        values = np.linspace(-1, 2, number)
        student = stats.ttest_1samp(values, 0)
        interval, found = student.confidence_interval(0.95), spread_of(values)
        assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=0.05)
        assert found.low <= interval.low and found.high >= interval.high and found.p >= student.pvalue
    values = np.linspace(-1, 2, 10)
    interval, found = stats.ttest_1samp(values, 0).confidence_interval(0.95), spread_of(values)
    assert interval.low + 0.01 < found.low < found.high < interval.high - 0.01
    above_zero = np.array([1.0, 2.0, 4.0, 5.0])  # no resample crosses 0
    for values in (above_zero, -above_zero):
        assert spread_of(values).p == pytest.approx(stats.ttest_1samp(values, 0).pvalue)


def test_a_spread_of_seeds_that_is_next_to_nothing_changes_next_to_nothing():
    table = np.array([1.0, 2.0, 4.0, 5.0])[:, None]
    without, with_it = (paired_bootstrap([table], SeedSpread([size], 3.0))[0] for size in (0.0, 1e-12))
    assert (with_it.low, with_it.high, with_it.p) == pytest.approx((without.low, without.high, without.p), rel=1e-4)


def test_ends_are_quantiles_of_the_resamples_and_p_is_where_they_cross_zero():
    """Of twelve prompts one differs: a resample holds it k times with probability C(12, k) 11^(12-k) / 12^12."""
    found = spread_of([0.0] * 11 + [6.0])
    tail = expanded_tail(0.025, 12)
    assert (found.low, found.high) == (0, stats.binom.ppf(1 - tail, 12, 1 / 12) / 2)
    share = (11 / 12) ** 12  # without it
    by_hand = 2 * stats.t.cdf(stats.norm.ppf(share) / np.sqrt(12 / 11), 11)
    assert found.p == pytest.approx(by_hand, rel=0.03)  # 0 is on the side of both ends
    assert spread_of([0.0] * 11 + [-6.0]).p == pytest.approx(by_hand, rel=0.03)
    above = spread_of([-0.01] * 11 + [6.0])
    assert above.p == pytest.approx(by_hand, rel=0.03)
    below = spread_of([0.01] * 11 + [-6.0])
    assert below.p == pytest.approx(by_hand, rel=0.03) and below.mean == -above.mean


def test_a_p_value_is_at_least_that_of_half_a_resample():
    values = 5 + np.linspace(-1, 1, 30)
    for number in (100, 1000):
        least = 2 * stats.t.cdf(stats.norm.ppf(0.5 / number) / np.sqrt(30 / 29), 29)
        assert spread_of(values, num_resamples=number).p == pytest.approx(least)
        assert spread_of(-values, num_resamples=number).p == pytest.approx(least)


def test_sums_that_differ_by_rounding_are_the_same_up_to_the_limit():
    exact = [-NOTHING / 2, NOTHING / 2] * 10  # apart by as much as counts as nothing
    found = spread_of(exact)
    assert (found.mean, found.p) == (0, 1) and found.high == pytest.approx(1 - 0.05 ** (1 / 20))
    assert spread_of([1.5 * value for value in exact]).high < 1e-9
    nothing = spread_of([NOTHING / 4] * 9, paired=False)
    assert (nothing.mean, nothing.p) == (0, 1)
    large = spread_of([0.3, 0.1 + 0.2] * 10)
    assert large.p == pytest.approx((1 / 1.3) ** 20) and large.low == pytest.approx(1.3 * 0.05 ** (1 / 20) - 1)
    lower = spread_of([-0.3, -0.1 - 0.2] * 10)
    assert lower.p == pytest.approx(large.p) and lower.high == pytest.approx(-large.low)


def test_seeds_widen_also_what_is_the_same_on_every_prompt():
    table = np.full((20, 2), 0.25)
    (found,) = paired_bootstrap([table], SeedSpread([0.02], 3.0), num_resamples=200_000)
    half = stats.t.ppf(1 - expanded_tail(0.025, 20), 3) * np.sqrt(0.02 / 2)
    assert (found.low, found.high) == pytest.approx((0.25 - half, 0.25 + half), rel=0.05)
    with np.errstate(all="raise"):  # Student's statistic of no spread would be infinite
        few = paired_bootstrap([table[:5]], SeedSpread([0.02], 3.0))[0]
    assert few.low is not None and few.p > 0.05


def test_a_score_at_the_end_of_its_range_has_a_p_value():
    (best,) = paired_bootstrap([np.ones((9, 1))], NO_SPREAD)
    assert best.p == pytest.approx(0.5**9)  # -1 on each of nine prompts as likely as 1
    share = paired_bootstrap([np.ones((9, 1))], NO_SPREAD, paired=False)[0]
    assert (share.low, share.high, share.p) == (pytest.approx(0.05 ** (1 / 9)), 1, 0)
    none = paired_bootstrap([np.zeros((9, 1))], NO_SPREAD, paired=False)[0]
    assert (none.low, none.high, none.p) == (0, pytest.approx(1 - 0.05 ** (1 / 9)), 1)
