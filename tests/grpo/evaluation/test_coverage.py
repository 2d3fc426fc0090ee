"""What intervals and p-values are worth: simulated scores and studies whose true means and effects are known."""

import numpy as np
import pytest

from blip3o_grpo.evaluation.statistics import estimate
from tests.grpo.study.simulated import EFFECT, World, simulate

NUM_PROMPTS = (4, 5, 6, 8, 12, 16, 32)


def share(p):
    return (lambda rng, n: (rng.random(n) < p).astype(float)), p


def quarters(p):
    return (lambda rng, n: rng.binomial(4, p, n) / 4), p


def beta(a, b):
    return (lambda rng, n: rng.beta(a, b, n)), a / (a + b)


SCORES = {
    "one image, rare": share(0.1),
    "one image, often": share(0.7),
    "one image, half": share(0.5),
    "four images": quarters(0.3),
    "easy and hard prompts": ((lambda rng, n: rng.binomial(4, rng.beta(0.5, 0.5, n)) / 4), 0.5),
    "skewed": beta(0.5, 2),
    "near the top": beta(8, 2),
    "many zeros": ((lambda rng, n: (rng.random(n) < 0.4) * rng.beta(5, 2, n)), 0.4 * 5 / 7),
}
"""Name to what draws `n` prompts' scores, and their true mean."""
CHANGES = {
    "small everywhere": ((lambda rng, n: rng.normal(0.1, 0.05, n)), 0.1),
    "few prompts change": ((lambda rng, n: rng.choice([-1.0, 0.0, 1.0], n, p=[0.1, 0.7, 0.2])), 0.1),
}
TAGS = (0.95, 0.8, 0.3, 0.85, 0.2, 0.4)
"""Share of correct images by GenEval tag."""


def coverage(draw, truth, num_studies, *, paired=False):
    """Share of intervals that hold the truth; `draw(rng)` gives the strata."""
    rng, hits = np.random.default_rng(0), 0
    for _ in range(num_studies):
        found = estimate(*draw(rng), paired=paired)
        hits += found.low - 1e-9 <= truth <= found.high + 1e-9
    return hits / num_studies


def check_coverage(num_prompts, num_studies, capsys):
    cases = [*((case, False) for case in SCORES.values()), *((case, True) for case in CHANGES.values())]
    found = [
        coverage(lambda rng, draw=draw: [draw(rng, num_prompts)], truth, num_studies, paired=paired)
        for (draw, truth), paired in cases
    ]
    with capsys.disabled():
        print(f"\ncoverage, n={num_prompts}: {np.mean(found):.3f}", *(f"{value:.2f}" for value in found))  # noqa: T201
    noise = 2.5 * np.sqrt(0.05 * 0.95 / num_studies / len(found))
    assert 0.93 - noise <= np.mean(found) <= 0.97 + noise
    assert min(found) >= 0.85 - 2 * np.sqrt(0.1 / num_studies)


@pytest.mark.parametrize("num_prompts", NUM_PROMPTS)
def test_intervals_of_few_prompts_hold_the_true_mean(num_prompts, capsys):
    check_coverage(num_prompts, 50, capsys)


@pytest.mark.slow
@pytest.mark.parametrize("num_prompts", NUM_PROMPTS)
def test_intervals_of_few_prompts_hold_the_true_mean_in_many_studies(num_prompts, capsys):
    check_coverage(num_prompts, 3000, capsys)


def tags(sizes, kind):
    """Strata of a GenEval overall."""

    def draw(rng):
        if kind == "one image":
            return [(rng.random(size) < p).astype(float) for size, p in zip(sizes, TAGS, strict=True)]
        return [rng.binomial(4, p, size) / 4 for size, p in zip(sizes, TAGS, strict=True)]

    return draw


OVERALL = {"two a tag": (2,) * 6, "four a tag": (4,) * 6, "eight a tag": (8,) * 6, "unequal": (4, 3, 2, 6, 1, 5)}


def check_overall(num_studies):
    found = [
        coverage(tags(sizes, kind), np.mean(TAGS), num_studies)
        for sizes in OVERALL.values()
        for kind in ("one image", "four images")
    ]
    assert 0.93 <= np.mean(found) <= 0.98, found
    assert min(found) >= 0.9, found


def test_the_overall_of_few_prompts_a_tag_holds_the_true_mean():
    check_overall(50)


@pytest.mark.slow
def test_the_overall_of_few_prompts_a_tag_holds_the_true_mean_in_many_studies():
    check_overall(2000)


WORLDS = {
    **{f"two seeds, {scores}, {sd}": World(scores=scores, seed_sd=sd)
       for scores in ("quarters", "zero_inflated") for sd in (0.0, 0.01, 0.03, 0.06)},
    "arms that vary differently": World(seed_sd=(0.03, 0.03, 0.03, 0.01, 0.01)),
    "one seed, runs all alike": World(num_seeds=1, seed_sd=0.0),
    "three seeds": World(num_seeds=3),
    "two arms": World(num_arms=2),
    "few prompts": World(num_prompts=16),
    "many prompts": World(num_prompts=200, num_seeds=3),
}  # fmt: skip


def check_study(name, world, capsys):
    found = simulate(world, 1000)
    with capsys.disabled():
        by_arm = ", ".join(f"{share:.3f}" for share in found.covered)
        print(f"\ncoverage of the 95 % interval, 1000 studies, {name}: {found.covered.mean():.3f} ({by_arm})")  # noqa: T201
    assert 0.93 <= found.covered.mean() <= 0.97
    assert found.mean == pytest.approx(EFFECT, abs=0.005)
    assert found.consistent > 0.99


def test_intervals_cover_the_true_effect(capsys):
    check_study("two seeds", World(), capsys)


@pytest.mark.slow
@pytest.mark.parametrize("name", WORLDS)
def test_intervals_cover_the_true_effect_in_other_studies(name, capsys):
    check_study(name, WORLDS[name], capsys)


def test_studies_without_effects_rarely_find_one(capsys):
    """Holm over five arms that vary from seed to seed: at most about 5 % of the studies find something."""
    found = simulate(World(effect=0.0), 500)
    with capsys.disabled():
        print(f"\nstudies without effects that find one: {found.false_finding:.3f}")  # noqa: T201
    assert found.false_finding <= 0.07
