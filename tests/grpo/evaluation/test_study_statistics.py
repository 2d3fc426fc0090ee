"""The statistics of a study: by hand, and against Student's."""

import numpy as np
import pytest
from scipy import stats

from blip3o_grpo.evaluation.statistics import SeedSpread, paired_bootstrap, seed_spread

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
