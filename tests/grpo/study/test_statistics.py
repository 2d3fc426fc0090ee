"""The statistics of a study on synthetic scores whose true effect is known."""

import numpy as np
import pytest
from scipy import stats

from grpo.study.statistics import correct, paired_bootstrap

NUM_STUDIES = 2000


def synthetic_study(generator, num_prompts, effect):
    """Scores `[num_prompts]` of a baseline and of an arm as a study has them: the mean of four images with scores in
    quarters, prompts of very different difficulty, an arm that lifts each image's chance by `effect`."""
    chance = generator.beta(0.8, 0.8, num_prompts) * (1 - effect)
    base = generator.binomial(4, chance[:, None], (num_prompts, 4)).mean(axis=1) / 4
    arm = generator.binomial(4, chance[:, None] + effect, (num_prompts, 4)).mean(axis=1) / 4
    return arm - base


@pytest.mark.parametrize("num_prompts", [16, 52, 104])
@pytest.mark.parametrize("effect", [0.0, 0.15])
def test_intervals_cover_the_true_effect(num_prompts, effect):
    generator = np.random.default_rng(num_prompts)
    differences = np.stack([synthetic_study(generator, num_prompts, effect) for _ in range(NUM_STUDIES)], axis=1)
    # Fresh resamples for each block of studies: shared ones would make their errors alike.
    found = [
        estimate
        for block in range(0, NUM_STUDIES, 100)
        for estimate in paired_bootstrap(differences[:, block : block + 100], num_resamples=2000, seed=block)
    ]
    covered = np.mean([estimate.low <= effect <= estimate.high for estimate in found])
    assert 0.93 <= covered <= 0.97
    assert np.mean([estimate.mean for estimate in found]) == pytest.approx(effect, abs=0.005)
    excluded = [not estimate.low <= 0 <= estimate.high for estimate in found]
    assert np.mean([(estimate.p < 0.05) == out for estimate, out in zip(found, excluded, strict=True)]) > 0.997


def test_intervals_of_skewed_values_cover_too():
    generator = np.random.default_rng(1)
    values = generator.exponential(1.0, (104, NUM_STUDIES))
    found = paired_bootstrap(values, num_resamples=2000)
    assert 0.93 <= np.mean([estimate.low <= 1.0 <= estimate.high for estimate in found]) <= 0.97


def test_normal_values_give_students_interval_and_p_value():
    generator = np.random.default_rng(2)
    values = generator.normal(0.3, 1.0, (12, 1))
    (estimate,) = paired_bootstrap(values, num_resamples=200_000)
    student = stats.ttest_1samp(values[:, 0], 0)
    interval = student.confidence_interval(0.95)
    assert estimate.mean == pytest.approx(values.mean())
    assert (estimate.low, estimate.high) == pytest.approx((interval.low, interval.high), abs=0.08)
    assert estimate.p == pytest.approx(student.pvalue, rel=0.15)


def test_edge_cases():
    same, shifted = paired_bootstrap(np.stack([np.zeros(20), np.full(20, 0.25)], axis=1))
    assert (same.mean, same.low, same.high, same.p) == (0, 0, 0, 1)
    assert (shifted.low, shifted.high) == (0.25, 0.25)
    assert shifted.p < 0.001
    (few,) = paired_bootstrap(np.ones((4, 1)))
    assert few.mean == 1 and np.isnan(few.low) and few.p == 1
    values = np.random.default_rng(0).normal(size=(30, 3))
    assert paired_bootstrap(values) == paired_bootstrap(values)
    assert paired_bootstrap(values, seed=1) != paired_bootstrap(values)


def test_corrections_of_known_families():
    assert correct([0.01, 0.04, 0.03, 0.005], "holm") == pytest.approx([0.03, 0.06, 0.06, 0.02])  # as R's p.adjust
    assert correct([0.01, 0.04, 0.03, 0.005], "benjamini_hochberg") == pytest.approx([0.02, 0.04, 0.04, 0.02])
    assert correct([0.5, 0.9], "holm") == pytest.approx([1.0, 1.0])
    assert correct([], "holm") == [] == correct([], "benjamini_hochberg")


def test_a_family_without_effects_rarely_shows_one():
    """Holm over 20 comparisons without any effect: at most about 5 % of the studies find something."""
    generator = np.random.default_rng(3)
    wrong = 0
    for study in range(300):
        differences = np.stack([synthetic_study(generator, 52, 0.0) for _ in range(20)], axis=1)
        found = paired_bootstrap(differences, num_resamples=2000, seed=study)
        wrong += min(correct([estimate.p for estimate in found], "holm")) < 0.05
    assert wrong / 300 <= 0.07
