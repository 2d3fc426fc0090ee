"""Advantages where groups hardly differ, computed by hand; where they do, TRL's number stays to the last digit."""

import subprocess
import sys

import numpy as np
import pytest

from blip3o_grpo.training.advantages import floored_advantages, group_spreads, spread_metrics

NAN = float("nan")
ONE = np.ones(1)
GROUP = {"scale": "group", "aggregation": "sum_then_normalize"}
BATCH = GROUP | {"scale": "batch"}
NONE = GROUP | {"scale": "none"}
GDPO = {"scale": "group", "aggregation": "normalize_then_sum"}


def column(*rewards):
    return np.array(rewards, dtype=float)[:, None]


def trls(rewards, weights, size, scale, aggregation):
    """TRL 1.16's advantages, group after group, in plain Python."""
    scored = [[value for value in row if value == value] for row in rewards.tolist()]
    sums = [
        sum(w * v for w, v in zip(weights, row, strict=True) if v == v) if kept else NAN
        for row, kept in zip(rewards.tolist(), scored, strict=True)
    ]
    if aggregation == "normalize_then_sum":
        terms = np.zeros(len(rewards))
        for start in range(0, len(rewards), size):
            for k, weight in enumerate(weights):
                part = rewards[start : start + size, k]
                if not np.isnan(part).any():
                    terms[start : start + size] += weight * (part - part.mean()) / (part.std(ddof=1) + 1e-4)
        known = [term for term, kept in zip(terms, scored, strict=True) if kept]
        found = (terms - np.mean(known)) / (np.std(known, ddof=1) + 1e-4)
        return np.array([value if kept else 0.0 for value, kept in zip(found, scored, strict=True)])
    found = []
    for start in range(0, len(rewards), size):
        part = np.array(sums[start : start + size])
        spread = {"group": part.std(ddof=1), "batch": np.nanstd(sums, ddof=1), "none": 1 - 1e-4}[scale] + 1e-4
        found += ((part - part.mean()) / spread).tolist()
    return np.nan_to_num(np.array(found))


def floored(rewards, size, floor, weights=ONE, **mode):
    return floored_advantages(trls(rewards, weights, size, **mode), rewards, weights, size, floor=floor, **mode)


def test_a_small_spread_is_divided_by_the_floor():
    """Rewards .50, .51: mean .505, standard deviation .00707, under .05."""
    expected = [-0.005 / 0.0501, 0.005 / 0.0501]
    assert floored(column(0.50, 0.51), 2, 0.05, **GROUP) == pytest.approx(expected, rel=1e-12)
    assert floored(column(0.50, 0.51), 2, 0.0, **GROUP) == pytest.approx([-0.692, 0.692], abs=1e-2)


def test_a_group_that_differs_keeps_its_number_to_the_last_digit():
    theirs = np.array([-0.3, 0.3, 0.1234567890123456, -0.1234567890123456], dtype=np.float64)
    rewards = column(0.2, 0.9, 0.5, 0.5001)
    found = floored_advantages(theirs, rewards, ONE, 2, floor=0.05, **GROUP)
    assert found[:2].tolist() == theirs[:2].tolist()
    assert 0 < found[2] < 0.01 * theirs[2]


def test_the_floor_itself_is_not_reached_by_a_spread_that_is_as_large():
    rewards = column(0.0, 0.125)  # standard deviation .0884 = .125 / sqrt(2)
    spread = float(group_spreads(rewards, ONE, 2, "sum_then_normalize")[0, 0])
    assert spread == pytest.approx(0.125 / 2**0.5)
    theirs = np.array([-1.0, 1.0])
    assert floored_advantages(theirs, rewards, ONE, 2, floor=spread, **GROUP).tolist() == [-1.0, 1.0]
    above = floored_advantages(theirs, rewards, ONE, 2, floor=2 * spread, **GROUP)
    assert above == pytest.approx(theirs * (spread + 1e-4) / (2 * spread + 1e-4))


def test_perfect_writing_with_a_guard_that_jitters_teaches_nearly_nothing():
    """OCR 1.0 throughout, guard .990 or .992: TRL's advantages reach 1.68, with the floor none reaches .011."""
    guard = [0.990] * 7 + [0.992]
    rewards, weights = np.array([[1.0, value] for value in guard]), np.array([1.0, 0.3])
    assert max(abs(trls(rewards, weights, 8, **GROUP))) == pytest.approx(1.68, abs=0.01)
    mean = sum(guard) / 8
    expected = [0.3 * (value - mean) / 0.0501 for value in guard]
    assert floored(rewards, 8, 0.05, weights, **GROUP) == pytest.approx(expected, abs=1e-12)
    assert max(expected) < 0.011
    assert floored(rewards, 8, 0.05, weights, **BATCH) == pytest.approx(expected, abs=1e-12)
    assert max(abs(floored(rewards, 8, 0.05, weights, **GDPO))) < 0.12


@pytest.mark.parametrize("mode", [GROUP, BATCH, NONE, GDPO], ids=["group", "batch", "none", "gdpo"])
@pytest.mark.parametrize("floor", [0.0, 0.05, 10.0])
def test_a_group_without_spread_gives_exactly_nothing(mode, floor):
    """.7 has no exact mean of six: TRL's own number is a rounding error, not 0."""
    rewards = column(*[0.7] * 6, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
    theirs = np.array([1e-3] * 6 + [-1.3, -0.8, -0.3, 0.3, 0.8, 1.3])
    found = floored_advantages(theirs, rewards, ONE, 6, floor=floor, **mode)
    assert found[:6].tolist() == [0.0] * 6
    assert (np.sign(found[6:]) == np.sign(theirs[6:])).all()


@pytest.mark.parametrize("mode", [GROUP, BATCH, NONE, GDPO], ids=["group", "batch", "none", "gdpo"])
def test_without_a_floor_the_numbers_are_trls(mode):
    generator = np.random.default_rng(0)
    for _ in range(50):
        rewards = generator.random((12, 2)) * generator.choice([1e-3, 0.1, 1.0], (1, 2))
        rewards[:4, 0] = NAN if generator.random() < 0.5 else rewards[:4, 0]
        rewards[8:] = NAN if generator.random() < 0.3 else rewards[8:]  # a group that was dropped
        weights = generator.random(2) + 0.1
        expected = trls(rewards, weights, 4, **mode)
        assert floored_advantages(expected, rewards, weights, 4, floor=0.0, **mode).tolist() == expected.tolist()


def test_a_floor_of_the_batch_acts_on_all_groups_alike():
    """.50, .51, .52, .53: standard deviation .0129 over the batch, so the floor .05 divides .005."""
    expected = [-0.005 / 0.0501, 0.005 / 0.0501] * 2
    assert floored(column(0.50, 0.51, 0.52, 0.53), 2, 0.05, **BATCH) == pytest.approx(expected)
    wide = column(0.0, 0.01, 0.9, 0.91)  # .5 over the batch: the floor is not reached, though each group is narrow
    assert floored(wide, 2, 0.05, **BATCH).tolist() == trls(wide, ONE, 2, **BATCH).tolist()
    assert floored(column(0.5, 0.51), 2, 0.05, **NONE) == pytest.approx([-0.005, 0.005])


def test_gdpo_floors_each_reward_and_does_not_undo_it_over_the_batch():
    """One reward differs, by .6, one jitters, by .002; by hand, with standard deviations of .6 / sqrt(2) and so on."""
    rewards, weights = np.array([[0.2, 0.500], [0.8, 0.502], [0.2, 0.502], [0.8, 0.500]]), np.array([1.0, 0.5])
    first, second = 0.3 / (0.6 / 2**0.5 + 1e-4), 0.001 / (0.002 / 2**0.5 + 1e-4)
    without = np.array([-first - second / 2, first + second / 2, -first + second / 2, first - second / 2])
    jitter = 0.001 / (0.05 + 1e-4)
    expected = np.array([-first - jitter / 2, first + jitter / 2, -first + jitter / 2, first - jitter / 2])
    expected /= without.std(ddof=1) + 1e-4
    assert floored(rewards, 2, 0.05, weights, **GDPO) == pytest.approx(expected, abs=1e-12)
    narrow = column(0.500, 0.502, 0.300, 0.302)  # all groups jitter: the second division must not make them whole
    assert max(abs(floored(narrow, 2, 0.05, **GDPO))) < 0.03
    assert max(abs(trls(narrow, ONE, 2, **GDPO))) > 0.8


def test_gdpo_keeps_trls_number_in_groups_where_no_reward_reaches_the_floor():
    rewards = np.array([[0.2, 0.1], [0.8, 0.9], [0.5, 0.5], [0.501, 0.6]])
    theirs = trls(rewards, np.ones(2), 2, **GDPO)
    found = floored(rewards, 2, 0.05, np.ones(2), **GDPO)
    assert found[:2].tolist() == theirs[:2].tolist() and abs(found[3]) < abs(theirs[3])


@pytest.mark.parametrize("mode", [GROUP, BATCH, GDPO], ids=["group", "batch", "gdpo"])
def test_groups_without_scores_have_no_advantage_and_change_nobodys(mode):
    """Dropped ones, and those a reward does not apply to."""
    rewards = np.array([[0.2, 0.3], [0.23, 0.9], [NAN, NAN], [NAN, NAN], [NAN, 0.50], [NAN, 0.52]])
    weights = np.array([1.0, 0.5])
    found = floored(rewards, 2, 0.05, weights, **mode)
    assert found[2:4].tolist() == [0.0, 0.0]
    alone = floored(np.delete(rewards, [2, 3], axis=0), 2, 0.05, weights, **mode)
    assert np.delete(found, [2, 3]).tolist() == alone.tolist()
    if mode is GROUP:  # the second reward alone, with its weight: .25 and .26
        assert found[4:] == pytest.approx([-0.005 / 0.0501, 0.005 / 0.0501])


def test_two_summed_rewards_by_hand_one_of_which_does_not_apply_to_a_group():
    rewards = np.array([[0.2, NAN], [0.2, NAN], [0.2, NAN], [0.9, NAN], [0.2, 0.8], [0.4, 0.4], [0.6, 0.0], [0.8, 0.8]])
    found = floored(rewards, 4, 0.05, np.array([1.0, 1.0]), **GROUP)
    assert found[:4] == pytest.approx(np.array([-0.175, -0.175, -0.175, 0.525]) / (0.35 + 1e-4))
    sums = np.array([1.0, 0.8, 0.6, 1.6])
    assert found[4:] == pytest.approx((sums - 1.0) / (sums.std(ddof=1) + 1e-4))


def test_spreads_are_those_of_the_sum_or_of_each_reward():
    rewards = np.array([[0.0, 1.0], [1.0, 0.0], [0.3, NAN], [0.3, NAN], [NAN, NAN], [NAN, NAN]])
    half = 0.5**0.5
    summed = group_spreads(rewards, np.ones(2), 2, "sum_then_normalize")
    assert summed[:2].tolist() == [[0.0], [0.0]] and np.isnan(summed[2]).all()  # two rewards that cancel teach nothing
    weighed = group_spreads(rewards, np.array([3.0, 1.0]), 2, "sum_then_normalize")
    assert weighed[:2] == pytest.approx(np.array([[2 * half], [0.0]]))
    each = group_spreads(rewards, np.ones(2), 2, "normalize_then_sum")
    assert each[0] == pytest.approx([half, half]) and each[1, 0] == 0 and np.isnan(each[1, 1])
    assert np.isnan(each[2]).all()


def test_shares_are_of_the_scored_groups():
    """One group differs, one differs a little, two do not, and one was dropped."""
    spreads = np.array([[0.3], [0.01], [0.0], [0.0], [NAN]])
    assert spread_metrics(spreads, 0.05) == {"groups/without_spread": 0.5, "groups/under_min_std": 0.25}
    assert spread_metrics(spreads, 0.0) == {"groups/without_spread": 0.5, "groups/under_min_std": 0.0}
    assert spread_metrics(spreads, 0.01)["groups/under_min_std"] == 0.0  # as large as the floor
    each = np.array([[0.3, 0.01], [NAN, 0.3], [0.0, NAN], [NAN, NAN]])
    assert spread_metrics(each, 0.05) == pytest.approx({"groups/without_spread": 1 / 3, "groups/under_min_std": 1 / 3})
    assert spread_metrics(np.full((2, 1), NAN), 0.05) == {}


def test_advantages_need_no_torch():
    code = "import sys, blip3o_grpo.training.advantages; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0
