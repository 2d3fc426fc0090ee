"""Agreement of rewards within groups, on scores whose answers are known."""

import math

import numpy as np
import pytest
from scipy import stats

from blip3o_grpo.evaluation.agreement import SAME, compare_rewards, rank_correlation, summarise_reward
from blip3o_grpo.evaluation.statistics import Estimate

NAN = math.nan


def test_spread_and_saturation_of_one_reward():
    scores = np.array([[0.0, 1.0, 1.0, 0.5], [0.5, 0.5, 0.5, 0.5], [NAN, NAN, NAN, NAN], [1.2, NAN, NAN, NAN]])
    summary = summarise_reward("r", scores)
    assert (summary.num_groups, summary.num_images) == (2, 9)
    assert summary.mean == Estimate(pytest.approx((2.5 / 4 + 0.5 + 1.2) / 3), None, None, 3)
    assert summary.within_std == Estimate(pytest.approx(scores[0].std() / 2), None, None, 2)
    assert summary.without_spread.mean == 0.5
    assert (summary.at_zero.mean, summary.at_one.mean) == (pytest.approx(1 / 12), pytest.approx(1.5 / 3))
    empty = summarise_reward("r", np.full((2, 3), NAN))
    assert empty.num_groups == 0 and empty.mean is None


def test_two_scores_are_a_group_and_differences_by_rounding_are_none():
    scores = np.array([[0.0, SAME, NAN], [0.0, 2 * SAME, NAN], [3.0, 4.0, 5.0], [0.9, NAN, NAN]])
    summary = summarise_reward("r", scores)
    assert (summary.num_groups, summary.num_images) == (3, 8)
    assert (summary.without_spread.mean, summary.without_spread.n) == (pytest.approx(1 / 3), 3)
    assert summary.at_zero.mean == pytest.approx((1 / 2 + 1 / 2) / 4)
    assert summary.at_one.mean == pytest.approx(1 / 4)


def test_shares_lie_between_0_and_1_and_correlations_between_minus_1_and_1():
    """Four prompts that all say the same leave 1 - .05^(1/4) of the range open (the rule of three)."""
    left = 1 - 0.05**0.25
    scores = np.array([[0.2, 0.4, 0.9]] * 4)
    summary, pair = summarise_reward("r", scores), compare_rewards("a", "b", scores, scores)
    assert (summary.at_zero.low, summary.at_zero.high) == pytest.approx((0, left))
    for found in (pair.pearson, pair.spearman):
        assert (found.low, found.high) == pytest.approx((1 - 2 * left, 1))
    for found in (pair.same_order, pair.same_best):
        assert (found.low, found.high) == pytest.approx((1 - left, 1))


def test_rounding_takes_no_correlation_beyond_1():
    """Else nothing would be known of its range, and where all groups agree there would be no interval."""
    rows = np.random.default_rng(0).random((300, 5))
    pair, opposite = (compare_rewards("a", "b", rows, factor * rows) for factor in (3.3, -3.3))
    kept = 0.05 ** (1 / 300)
    assert (pair.pearson.low, pair.pearson.high) == pytest.approx((2 * kept - 1, 1))
    assert (opposite.pearson.low, opposite.pearson.high) == pytest.approx((-1, 1 - 2 * kept))


def test_groups_of_one_prompt_are_one_draw():
    """Twelve groups of four prompts say no more about other prompts than four do."""
    scores = np.random.default_rng(0).random((4, 1)) + 0.01 * np.random.default_rng(1).random((12, 1, 4)).mean(1)[:4]
    scores = np.concatenate([scores, scores, scores])
    few = summarise_reward("r", scores, [f"p{i % 4}" for i in range(12)])
    many = summarise_reward("r", scores)
    assert (few.mean.n, many.mean.n) == (4, 12) and few.mean.mean == pytest.approx(many.mean.mean)
    assert few.mean.high - few.mean.low > 1.5 * (many.mean.high - many.mean.low)
    pair = compare_rewards("a", "b", scores, scores, [f"p{i % 4}" for i in range(12)])
    assert (pair.num_groups, pair.spearman.n) == (12, 4)


def test_correlations_are_the_mean_over_groups_and_not_over_images():
    generator = np.random.default_rng(0)
    level = 10 * generator.normal(size=(6, 1))  # groups of different difficulty: images correlate, groups need not
    a, b = level + generator.normal(size=(6, 8)), level + generator.normal(size=(6, 8))
    pair = compare_rewards("a", "b", a, b)
    assert pair.pearson.mean == pytest.approx(np.mean([stats.pearsonr(x, y)[0] for x, y in zip(a, b, strict=True)]))
    assert pair.spearman.mean == pytest.approx(np.mean([stats.spearmanr(x, y)[0] for x, y in zip(a, b, strict=True)]))
    assert stats.pearsonr(a.ravel(), b.ravel())[0] > 0.9 and abs(pair.pearson.mean) < 0.5


def test_a_monotone_copy_agrees_and_its_opposite_does_not():
    a = np.random.default_rng(1).normal(size=(5, 6))
    same, opposite = compare_rewards("a", "b", a, np.exp(a)), compare_rewards("a", "c", a, -a)
    assert [e.mean for e in (same.spearman, same.same_order, same.same_best)] == pytest.approx([1, 1, 1])
    assert [e.mean for e in (opposite.pearson, opposite.same_order, opposite.same_best)] == pytest.approx([-1, 0, 0])


def test_groups_without_spread_or_common_images_do_not_count():
    flat, rounding = ([1.0, 1.0, 1.0], [0.0, 1.0, 2.0]), ([0.0, SAME, 0.0], [0.0, 1.0, 2.0])
    apart, one = ([0.0, 1.0, NAN], [NAN, NAN, 1.0]), ([0.0, 1.0, NAN], [NAN, 0.0, 1.0])
    good = ([0.0, 1.0, 2.0], [0.0, 1.0, 2.0])
    a, b = np.array([flat, apart, one, rounding, good]).transpose(1, 0, 2)
    for first, second in ((a, b), (b, a)):
        pair = compare_rewards("a", "b", first, second)
        assert (pair.num_groups, pair.pearson.n, pair.same_order.n) == (1, 1, 1)
        nothing = compare_rewards("a", "b", first[:-1], second[:-1])
        assert (nothing.num_groups, nothing.pearson, nothing.same_order, nothing.same_best) == (0, None, None, None)
    just = np.array([[0.0, 2 * SAME, 0.0]])
    assert compare_rewards("a", "b", just, just).num_groups == 1


def test_ties_and_pairs():
    a, b = np.array([[1.0, 1.0, 0.0]]), np.array([[1.0, 0.0, 0.0]])
    for pair in (compare_rewards("a", "b", a, b), compare_rewards("b", "a", b, a)):
        assert pair.same_best.mean == 0.5  # one of the two best of `a` is the best of `b`
        assert pair.same_order.mean == 1.0  # only the first and the last are told apart by both
        assert pair.pearson.mean == pytest.approx(0.5)  # three images can correlate: (1, 1, -2) and (2, -1, -1)
        assert pair.spearman.mean == pytest.approx(0.5)
    rising, flat_end = np.array([[0.0, 1.0, 2.0]]), np.array([[0.0, 2.0, 2.0]])
    for pair in (compare_rewards("a", "b", rising, flat_end), compare_rewards("a", "b", flat_end, rising)):
        assert pair.same_order.mean == 1.0 and pair.same_best.mean == 0.5
    two = compare_rewards("a", "b", a[:, 1:], np.array([[0.3, 0.1]]))
    assert two.same_order.mean == 1.0 and two.pearson is None and two.spearman is None  # two cannot correlate


def test_images_as_good_as_the_best_but_for_rounding_are_the_best_too():
    a = np.array([[1.0, 1.0 - SAME, 0.0]])
    b = np.array([[1.0, 0.5, 0.0]])
    assert compare_rewards("a", "b", a, b).same_best.mean == compare_rewards("b", "a", b, a).same_best.mean == 0.5
    assert compare_rewards("a", "b", a - [0, SAME, 0], b).same_best.mean == 1.0


def test_equal_values_share_their_mean_rank():
    x, y = np.array([3.0, 1.0, 1.0, 2.0]), np.array([0.9, 0.8, 0.1, 0.1])
    assert rank_correlation(x, y) == pytest.approx(stats.spearmanr(x, y)[0])
