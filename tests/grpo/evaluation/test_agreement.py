"""Agreement of rewards within groups, on scores whose answers are known."""

import math

import numpy as np
import pytest
from scipy import stats

from blip3o_grpo.evaluation.agreement import compare_rewards, summarise_reward
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
    a = np.array([[0.0, 1.0, 2.0], [1.0, 1.0, 1.0], [0.0, 1.0, NAN], [NAN, NAN, 1.0]])
    b = np.array([[0.0, 1.0, 2.0], [0.0, 1.0, 2.0], [NAN, 0.0, 1.0], [1.0, 2.0, 3.0]])
    assert compare_rewards("a", "b", a, b).num_groups == 1
    nothing = compare_rewards("a", "b", a[1:], b[1:])
    assert (nothing.num_groups, nothing.pearson, nothing.same_best) == (0, None, None)


def test_ties_and_pairs():
    a, b = np.array([[1.0, 1.0, 0.0]]), np.array([[1.0, 0.0, 0.0]])
    pair = compare_rewards("a", "b", a, b)
    assert pair.same_best.mean == 0.5  # one of the two best of `a` is the best of `b`
    assert pair.same_order.mean == 1.0  # only the first and the last are told apart by both
    two = compare_rewards("a", "b", a[:, 1:], np.array([[0.3, 0.1]]))
    assert two.same_order.mean == 1.0 and two.pearson is None  # two images cannot correlate
