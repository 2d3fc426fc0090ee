"""Where an arm's mean course first reaches a target: its images and minutes, and how many fewer than another arm's.

Intervals are over prompts and training seeds: resamples draw the prompts, the same ones for all arms, and shift an
arm's whole course by what its seeds differ in (`statistics.seed_spread`), since a seed that did well goes on doing so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from blip3o_grpo.evaluation.statistics import (
    LEVEL,
    MIN_PROMPTS,
    NUM_RESAMPLES,
    Estimate,
    expanded_tail,
    seed_spread,
)


@dataclass(frozen=True)
class Line:
    """The courses of an arm's seeds at the E evaluations that all of them have."""

    images: np.ndarray  # [E], means over seeds
    minutes: np.ndarray  # [E], likewise
    scores: np.ndarray  # [num_prompts, num_seeds, E]


@dataclass(frozen=True)
class Passage:
    """When an arm reaches a target."""

    images: Estimate
    """Its mean is infinite where the target is not reached, its ends where resamples do not reach it."""
    minutes: Estimate
    """Of steps, without evaluations."""
    saved: Estimate | None
    """Images by which it is there before the baseline; None: this is it, or one of them does not reach the target."""


def find_passages(lines: Mapping[str, Line], target: float, baseline: str) -> dict[str, Passage]:
    """Passage of every arm.

    Args:
        lines: by arm, of the same prompts.
        target: height of the mean over prompts and seeds.
        baseline: name of an arm; of the untrained policy, which has no line, there are no differences.
    """
    draws = _draws({arm: line.scores for arm, line in lines.items()})
    where = {arm: [first_reached(line.scores.mean(axis=(0, 1)), target)] for arm, line in lines.items()}
    for arm, courses in draws.items():
        where[arm] += [first_reached(course, target) for course in courses]
    num_prompts = len(next(iter(lines.values())).scores)
    images = {arm: np.array([at(place, lines[arm].images) for place in found]) for arm, found in where.items()}
    minutes = {arm: np.array([at(place, lines[arm].minutes) for place in found]) for arm, found in where.items()}
    found = {}
    for arm in lines:
        saved = None
        if arm != baseline and baseline in lines and math.isfinite(images[arm][0] + images[baseline][0]):
            with np.errstate(invalid="ignore"):
                saved = _estimate(images[baseline] - images[arm], num_prompts)
        found[arm] = Passage(_estimate(images[arm], num_prompts), _estimate(minutes[arm], num_prompts), saved)
    return found


def first_reached(scores: np.ndarray, target: float) -> float:
    """Where straight lines through the points first reach the target, in evaluations (0.5: half way between the first
    two); infinite: nowhere.

    Args:
        scores: `[E]`.
    """
    above = np.flatnonzero(scores >= target)
    if not len(above):
        return math.inf
    last = int(above[0])
    return 0.0 if last == 0 else last - 1 + float((target - scores[last - 1]) / (scores[last] - scores[last - 1]))


def at(place: float, x: np.ndarray) -> float:
    """The horizontal axis at a place of `first_reached`."""
    return math.inf if math.isinf(place) else float(np.interp(place, np.arange(len(x)), x))


def _draws(scores: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Resampled mean courses of every arm, `[num_resamples, E]`; none of too few prompts."""
    num_prompts = len(next(iter(scores.values())))
    if num_prompts < MIN_PROMPTS:
        return {arm: np.zeros((0, table.shape[2])) for arm, table in scores.items()}
    generator = np.random.default_rng(0)
    counts = generator.multinomial(num_prompts, np.full(num_prompts, 1 / num_prompts), size=NUM_RESAMPLES)
    found = {}
    for (arm, table), (degrees, errors) in zip(scores.items(), _seed_errors(list(scores.values())), strict=True):
        shift = generator.standard_t(degrees, (NUM_RESAMPLES, 1)) * errors
        found[arm] = counts @ table.mean(axis=1) / num_prompts + shift
    return found


def _seed_errors(tables: Sequence[np.ndarray]) -> list[tuple[float, np.ndarray]]:
    """Of every arm the degrees of freedom, and the standard error from seeds at each evaluation, `[E]`.

    Variances are pooled over arms where all have as many evaluations; else each arm has its own.
    """
    pooled = len({table.shape[2] for table in tables}) == 1
    found = []
    for number, table in enumerate(tables):
        beside, own = (tables, number) if pooled else ([table], 0)
        spreads = [seed_spread([t[:, :, place] for t in beside], len(beside)) for place in range(table.shape[2])]
        variances = np.array([spread.variances[own] for spread in spreads])
        found.append((spreads[-1].degrees, np.sqrt(variances / table.shape[1])))
    return found


def _estimate(values: np.ndarray, num_prompts: int) -> Estimate:
    """Of the value itself, which comes first, and its resamples; those that say nothing (never minus never) are left
    out."""
    resamples = np.sort(values[1:][~np.isnan(values[1:])])
    if not len(resamples):
        return Estimate(float(values[0]), None, None, num_prompts)
    tail = expanded_tail((1 - LEVEL) / 2, num_prompts)
    low, high = math.floor(tail * (len(resamples) - 1)), math.ceil((1 - tail) * (len(resamples) - 1))
    return Estimate(float(values[0]), float(resamples[low]), float(resamples[high]), num_prompts)
