"""Credit of the head: hand-computed advantages and variance parts."""

import numpy as np
import pytest

from blip3o_grpo.training.head import credit as of_head
from blip3o_grpo.training.head.credit import variance_parts

REWARDS = np.array([[0.0, 0.2], [1.0, 0.6]])


def head_advantages(rewards, credit, floor):
    """Of one group, divided by its own standard deviation."""
    return of_head.head_advantages([rewards], credit, "group", floor)[0]


def test_factorised_is_the_deviation_inside_the_completion():
    # deviations -.1 .1 .2 -.2; pooled variance (.01 + .01 + .04 + .04) / 2 = .05
    expected = np.array([[-0.1, 0.1], [0.2, -0.2]]) / (0.05**0.5 + 1e-4)
    np.testing.assert_allclose(head_advantages(REWARDS, "factorised", 0.0), expected)


def test_shared_is_the_deviation_from_the_group():
    expected = (REWARDS - 0.45) / (REWARDS.std(ddof=1) + 1e-4)
    np.testing.assert_allclose(head_advantages(REWARDS, "shared", 0.0), expected)


def test_good_tokens_do_not_praise_the_head():
    moved = REWARDS + np.array([[0.0], [5.0]])
    np.testing.assert_allclose(
        head_advantages(moved, "factorised", 0.0), head_advantages(REWARDS, "factorised", 0.0), atol=1e-12
    )


def test_the_floor_shrinks_small_differences():
    small = REWARDS / 1000
    assert np.abs(head_advantages(small, "factorised", 0.05)).max() < 0.01
    np.testing.assert_allclose(
        head_advantages(REWARDS, "factorised", 0.05), head_advantages(REWARDS, "factorised", 0.0)
    )


@pytest.mark.parametrize(
    ("rewards", "credit"),
    [
        (np.full((2, 3), 0.7), "shared"),
        (np.array([[0.1, 0.1, 0.1], [0.7, 0.7, 0.7]]), "factorised"),  # all of the tokens' doing; .1 has no exact mean
        (np.full((2, 2), np.nan), "factorised"),
    ],
)
def test_without_difference_nothing_is_learnt(rewards, credit):
    assert not head_advantages(rewards, credit, 0.0).any()


def test_the_batchs_deviation_lets_groups_that_differ_more_say_more():
    even = np.full((2, 2), 0.5)
    groups = [REWARDS, REWARDS / 10, even, np.full((2, 2), np.nan)]
    # squares .1, .001 and 0, of two free images each; what another rank has comes on top
    std = ((0.101 + 0.4) / (6 + 4)) ** 0.5
    found = of_head.head_advantages(groups, "factorised", "batch", 0.0, add=lambda sums: np.add(sums, [0.4, 4]))
    expected = np.array([[-0.1, 0.1], [0.2, -0.2]]) / (std + 1e-4)
    np.testing.assert_allclose(found, [expected, expected / 10, 0 * even, 0 * even], atol=1e-12)
    floored = of_head.head_advantages(groups, "factorised", "batch", 1.0)
    np.testing.assert_allclose(floored[0], np.array([[-0.1, 0.1], [0.2, -0.2]]) / (1 + 1e-4))


def test_without_a_scale_deviations_are_what_they_are():
    found = of_head.head_advantages([REWARDS], "shared", "none", 0.05)
    np.testing.assert_allclose(found[0], REWARDS - 0.45)


def test_variance_is_split_without_bias():
    rng = np.random.default_rng(0)
    parts = [variance_parts(rng.normal(0, 0.3, (6, 1)) + rng.normal(0, 0.5, (6, 4))) for _ in range(4000)]
    between, within = np.mean(parts, axis=0)
    assert within == pytest.approx(0.25, rel=0.03)
    assert between == pytest.approx(0.09, abs=0.012)


def test_variance_needs_two_of_each():
    assert np.isnan(variance_parts(np.ones((1, 4)))).all()
    assert np.isnan(variance_parts(np.ones((4, 1)))).all()
    assert variance_parts(REWARDS) == pytest.approx((0.245 - 0.05 / 2, 0.05))  # of the means .1 and .8
