"""Studies drawn from a known truth, as real ones are built: prompts, arms, training seeds, images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np

from blip3o_grpo.evaluation.multiple_comparisons import correct
from blip3o_grpo.evaluation.statistics import paired_bootstrap, seed_spread

EFFECT = 0.15


@dataclass(frozen=True)
class World:
    """Scores are bounded, many are 0 or 1, and prompts differ in difficulty and in what an arm does to them.

    Nothing is ever clipped, so the true effect of every arm is exactly `effect`.
    """

    num_prompts: int = 52
    num_seeds: int = 2
    num_arms: int = 5
    num_images: int = 4
    effect: float = EFFECT
    seed_sd: float | tuple[float, ...] = 0.02
    """Of the effect of one training run, over seeds; one number for all arms, or one for each."""
    scores: str = "quarters"
    """`quarters`: each image 0, 1/4 ... 1; `zero_inflated`: 0, or a number that tells two images apart."""

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """`[num_arms, num_prompts, num_seeds]` differences from the untrained policy."""
        shape = (self.num_arms, self.num_prompts, self.num_seeds)
        level = 0.28 + 0.34 * rng.beta(0.5, 0.5, (1, self.num_prompts, 1))  # easy and hard prompts
        by_prompt = rng.uniform(-0.1, 0.1, (self.num_arms, self.num_prompts, 1))
        common, own = (np.clip(rng.normal(size=(n, 1, self.num_seeds)), -3, 3) for n in (1, self.num_arms))
        sd = np.broadcast_to(np.asarray(self.seed_sd), (self.num_arms,))[:, None, None]
        by_seed = sd * (0.5 * common + 0.75**0.5 * own)  # arms with one seed share the order of prompts
        chance = level + self.effect + by_prompt + np.clip(by_seed, -0.13, 0.13)
        return self._images(rng, chance) - self._images(rng, np.broadcast_to(level, (1, *shape[1:])))

    def _images(self, rng: np.random.Generator, chance: np.ndarray) -> np.ndarray:
        """Mean score of a prompt's images, whose expectation is `chance`."""
        if self.scores == "quarters":
            return rng.binomial(4 * self.num_images, chance) / (4 * self.num_images)
        images = (self.num_images, *chance.shape)
        return ((rng.random(images) < chance) * rng.uniform(0.5, 1.5, images)).mean(axis=0)


@dataclass(frozen=True)
class Coverage:
    """What the intervals and p-values of many simulated studies were worth; shares in [0, 1]."""

    covered: np.ndarray
    """`[num_arms]` share of 95 % intervals that hold the true effect."""
    false_finding: float
    """Share of studies in which some p-value, corrected over the arms, is below 0.05."""
    consistent: float
    """Share of comparisons whose p-value is below 0.05 exactly if their interval leaves out 0."""
    mean: float


def simulate(world: World, num_studies: int, *, num_resamples: int = 1000, seed: int = 0) -> Coverage:
    """Analyse many studies of this world as `ablate` does."""
    rng = np.random.default_rng(seed)
    found = []
    for study in range(num_studies):
        tables = list(world.draw(rng))
        found.append(
            paired_bootstrap(tables, seed_spread(tables, len(tables)), num_resamples=num_resamples, seed=study)
        )
    low, high, p, mean = (
        np.array([[getattr(e, key) for e in row] for row in found]) for key in ("low", "high", "p", "mean")
    )
    return Coverage(
        ((low <= world.effect) & (world.effect <= high)).mean(axis=0),
        float(np.mean([min(correct(row, "holm")) < 0.05 for row in p])),
        float(np.mean((p < 0.05) == ((low > 0) | (high < 0)))),
        float(mean.mean()),
    )


def scored(
    effects: Mapping[str, Mapping[str, float]], *, num_prompts: int, seed_sd: float, seed: int, num_seeds: int = 2
) -> dict[str, dict[int, SimpleNamespace]]:
    """Arm to training seed to held-out scores (`per_prompt`), as `matrix.read_scores` gives them.

    Args:
        effects: arm to measure to its true effect; an arm without any is the untrained policy.
        seed_sd: of an effect, over training seeds.
        seed: of the drawing.
    """
    rng = np.random.default_rng(seed)
    names = list(dict.fromkeys(name for measures in effects.values() for name in measures))
    level = {name: rng.uniform(0.35, 0.55, num_prompts) for name in names}
    found: dict[str, dict[int, SimpleNamespace]] = {}
    for arm, measures in effects.items():
        found[arm] = {}
        for training_seed in range(num_seeds):
            columns = {}
            for name in names:
                effect = measures[name] + np.clip(rng.normal(0, seed_sd), -0.05, 0.05) if measures else 0.0
                columns[name] = rng.binomial(16, np.clip(level[name] + effect, 0, 1)) / 16
            rows = {f"p{i}": {name: float(columns[name][i]) for name in names} for i in range(num_prompts)}
            found[arm][training_seed] = SimpleNamespace(per_prompt=rows)
    return found
