"""Means over prompts with their 95 % intervals: of one policy, of a paired difference, of the arms of a study.

Images of one prompt are not independent, so a prompt's images are averaged first and prompts are what is drawn at
random. For a paired comparison pass differences, prompt by prompt: prompts differ in difficulty far more than two
policies do on one prompt. In a study training seeds are drawn at random too. Two or three are too few to be resampled,
so every resample adds a Student draw whose variance is how much seeds differ beyond what prompts and images explain.
With one seed that is unknown and left out: the interval then speaks about these very runs.

Every interval reaches as far as the wider of two on either side. The bootstrap follows the skew of scores; its
percentile levels are expanded for few prompts (Hesterberg, "What Teachers Should Know About the Bootstrap", 2015). It
cannot leave the range of the data, which is too narrow for four or five prompts: Student's interval can. Where all
prompts score the same, both have no width although, say, four failures out of four do not prove a rate of 0. There the
interval comes from the range that scores can take: to see the same value c on n prompts is unlikelier than 5 % once it
has a probability below q = 0.05^(1/n), so the mean is q c plus the rest, 1 - q, anywhere in the range (for 0 of n this
is the "rule of three"). Fewer than `MIN_PROMPTS` prompts have no interval.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

LEVEL = 0.95
NUM_RESAMPLES = 2000
NUM_STUDY_RESAMPLES = 20_000
"""More than for one interval: corrected p-values are small."""
MIN_PROMPTS = 4
"""Fewer prompts have no interval: nothing is known about their spread."""
ENOUGH_PROMPTS = 10
"""From here on resamples of a study's smooth differences reach as far as Student's interval does."""
NOTHING = 1e-12
"""Spread of values that are the same but for rounding."""

Bounds = tuple[float, float]


@dataclass(frozen=True)
class Estimate:
    """A mean over prompts with its 95 % interval."""

    mean: float
    low: float | None
    """None, like `high`: too few prompts for an interval."""
    high: float | None
    n: int | None
    """Prompts; None where a run of an older version did not store them."""

    @property
    def direction(self) -> int:
        """Of a change: 1 or -1 where its interval leaves out 0, else 0: no change is shown."""
        if self.low is None or self.high is None:
            return 0
        return (self.low > 0) - (self.high < 0)

    def interval(self, form: str = ".3f") -> str:
        """`0.250 to 0.360`, or `no interval (n=3)`."""
        if self.low is None or self.high is None:
            return "no interval" if self.n is None else f"no interval (n={self.n})"
        return f"{self.low:{form}} to {self.high:{form}}"

    def interval_and_n(self, form: str = ".3f") -> str:
        """`0.250 to 0.360, n=32`, or `no interval, n=3`."""
        ends = "no interval" if self.low is None else self.interval(form)
        return ends if self.n is None else f"{ends}, n={self.n}"

    def __str__(self) -> str:
        """`0.305 (0.250 to 0.360, n=32)`."""
        return f"{self.mean:.3f} ({self.interval_and_n()})"

    def as_metrics(self, name: str) -> dict[str, float]:
        """Interval and n as metrics beside the metric of this name; without an interval, n alone."""
        found = {"low": self.low, "high": self.high, "n": self.n}
        return {f"interval/{name}/{key}": float(value) for key, value in found.items() if value is not None}


@dataclass(frozen=True)
class ComparedEstimate(Estimate):
    """An estimate of a study."""

    p: float
    """Two-sided, of "the mean is 0"; 1 without an interval."""


@dataclass(frozen=True)
class SeedSpread:
    """How much means over many prompts and images would differ from training seed to training seed."""

    variances: list[float]
    """Of one run of each table; 0 where nothing has two seeds."""
    degrees: float
    """Degrees of freedom of these estimates."""


def from_metrics(metrics: Mapping[str, Any], name: str) -> Estimate | None:
    """A metric with what `Estimate.as_metrics` put beside it; None: nothing, as in runs of older versions."""
    mean, count = metrics.get(name), metrics.get(f"interval/{name}/n")
    if mean is None or count is None:
        return None
    return Estimate(mean, *(metrics.get(f"interval/{name}/{end}") for end in ("low", "high")), int(count))


def reward_metrics(means: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Interval and n of each reward's mean in a step, as metrics; see `Estimate.as_metrics`.

    Args:
        means: of every prompt, each reward's mean over the images that have it.
    """
    metrics: dict[str, float] = {}
    for name in dict.fromkeys(name for row in means for name in row):
        metrics |= estimate([row[name] for row in means if name in row]).as_metrics(f"reward/{name}")
    return metrics


def stratified_mean(*strata: Sequence[float]) -> float:
    """Unweighted mean of the strata's means."""
    return float(np.mean([np.mean(values) for values in strata]))


def estimate(*strata: Sequence[float], paired: bool = False, seed: int = 0, level: float = LEVEL) -> Estimate:
    """`stratified_mean` with its 95 % interval; deterministic.

    Args:
        strata: values, one per prompt: one list for a plain mean, one list per tag for their overall; prompts are
            resampled within each. The spread of a stratum of one prompt is taken from the others.
        paired: the values are differences of two policies' scores.
        seed: of the resampling.
        level: of the interval; of several that are looked at together, `corrected_level`.
    """
    data = [np.asarray(values, dtype=np.float64) for values in strata]
    mean, num_prompts = stratified_mean(*data), sum(map(len, data))
    bounds = find_bounds(np.concatenate(data), paired)
    degrees = num_prompts - len(data)
    if degrees < MIN_PROMPTS - 1:
        return Estimate(mean, None, None, num_prompts)
    spread = np.array([np.ptp(values) for values in data])
    if spread.max() <= NOTHING * (1 + abs(mean)):
        return Estimate(mean, *(constant_interval(mean, num_prompts, bounds, level) or (None, None)), num_prompts)
    squares = np.array([((values - values.mean()) ** 2).sum() for values in data])
    own_degrees = np.array([len(values) - 1 or degrees for values in data])
    of_mean = np.array([
        (total if len(values) > 1 else squares.sum()) / free / len(values) / len(data) ** 2
        for total, free, values in zip(squares, own_degrees, data, strict=True)
    ])  # fmt: skip
    free = of_mean.sum() ** 2 / (of_mean**2 / own_degrees).sum()  # Welch's and Satterthwaite's degrees of freedom
    quantile = -float(stats.t.ppf((1 - level) / 2, free))
    generator = np.random.default_rng(seed)
    resampled = np.full(NUM_RESAMPLES, mean)
    for values, variance in zip(data, of_mean, strict=True):
        size = len(values)
        if size == 1:
            resampled += np.sqrt(variance) * generator.standard_normal(NUM_RESAMPLES)
            continue
        means = values[generator.integers(size, size=(NUM_RESAMPLES, size))].mean(axis=1)
        # A resample varies by a factor (n-1)/n less than the mean of new prompts does.
        resampled += np.sqrt(size / (size - 1)) * (means - values.mean()) / len(data)
    tail = stats.norm.cdf(-quantile)
    low, high = np.quantile(resampled, [tail, 1 - tail])
    half = quantile * np.sqrt(of_mean.sum())
    low, high = clip(min(low, mean - half), max(high, mean + half), bounds)
    return Estimate(mean, low, high, num_prompts)


def resampled_estimate(statistic: Callable[[np.ndarray], float], num_prompts: int, seed: int = 0) -> Estimate:
    """Anything that is no mean with its expanded 95 % percentile bootstrap interval; deterministic.

    Args:
        statistic: of the prompts with these indices `[num_prompts]`, some more than once.
        num_prompts: to resample.
        seed: of the resampling.
    """
    value = statistic(np.arange(num_prompts))
    if num_prompts < MIN_PROMPTS or np.isnan(value):
        return Estimate(value, None, None, num_prompts)
    draws = np.random.default_rng(seed).integers(num_prompts, size=(NUM_RESAMPLES, num_prompts))
    tail = expanded_tail((1 - LEVEL) / 2, num_prompts)
    low, high = np.nanquantile([statistic(rows) for rows in draws], [tail, 1 - tail])
    return Estimate(value, float(low), float(high), num_prompts)


def find_bounds(values: np.ndarray, paired: bool) -> Bounds | None:
    """Range that scores (`paired`: differences of them) can take: that of shares of 1 if all are such, else unknown."""
    bounds = (-1.0, 1.0) if paired else (0.0, 1.0)
    return bounds if values.min() >= bounds[0] and values.max() <= bounds[1] else None


def corrected_level(comparisons: float) -> float:
    """Level of each of so many intervals, all of which hold with 95 % (Bonferroni)."""
    return 1 - (1 - LEVEL) / comparisons


def constant_interval(value: float, num_prompts: int, bounds: Bounds | None, level: float = LEVEL) -> Bounds | None:
    """Interval of a mean where all prompts have the same value; None if nothing is known of what else could come."""
    if bounds is None:
        return None
    kept = (1 - level) ** (1 / num_prompts)
    return value * kept + bounds[0] * (1 - kept), value * kept + bounds[1] * (1 - kept)


def clip(low: float, high: float, bounds: Bounds | None) -> Bounds:
    """The part of an interval inside the range of scores."""
    return (float(low), float(high)) if bounds is None else (float(max(low, bounds[0])), float(min(high, bounds[1])))


def seed_spread(values: Sequence[np.ndarray], num_independent: int) -> SeedSpread:
    """Spread of seeds, from an analysis of variance of each table and of all together.

    Two or three seeds of one arm say little, so a table gets the larger one of its own and the pooled variance: arms
    whose own seeds happen to agree are not believed more than the others, arms that vary more are not believed as much.

    Args:
        values: each `[num_prompts, num_seeds]`, of an arm or of a difference of arms; numbers of seeds may differ.
        num_independent: how many of them do not follow from the others (of the differences of all pairs of A arms A-1).
    """
    degrees = np.array([table.shape[1] - 1 for table in values])
    if not degrees.sum() or len(values[0]) < MIN_PROMPTS:
        return SeedSpread([0.0] * len(values), 1.0)
    own = np.array([_excess(table) if table.shape[1] > 1 else 0.0 for table in values])
    pooled = (degrees * own).sum() / degrees.sum()
    return SeedSpread(
        np.maximum(0.0, np.maximum(own, pooled)).tolist(), float(degrees.sum() * num_independent / len(values))
    )


def _excess(table: np.ndarray) -> float:
    """Variance of the seeds' means beyond what prompts and images explain; below 0 by chance where there is none."""
    num_prompts, num_seeds = table.shape
    residual = table - table.mean(axis=1, keepdims=True) - table.mean(axis=0) + table.mean()
    of_chance = (residual**2).sum() / ((num_prompts - 1) * (num_seeds - 1) * num_prompts)
    return float(table.mean(axis=0).var(ddof=1) - of_chance)


def paired_bootstrap(
    values: Sequence[np.ndarray],
    spread: SeedSpread,
    *,
    paired: bool = True,
    num_resamples: int = NUM_STUDY_RESAMPLES,
    seed: int = 0,
) -> list[ComparedEstimate]:
    """Estimate the mean of each table; the p-value is the smallest level whose interval leaves out 0.

    Args:
        values: each `[num_prompts, num_seeds]`, one value (or paired difference) per prompt and seed; all share the
            resampled prompts.
        spread: of seeds.
        paired: as of `estimate`.
        num_resamples: bounds how small a p-value can get: no resample across 0 counts as half a one.
        seed: of the resampling, so the same values give the same result.
    """
    by_prompt = np.stack([table.mean(axis=1) for table in values], axis=1)  # [num_prompts, K]
    num_prompts = len(by_prompt)
    means = by_prompt.mean(axis=0)
    if num_prompts < MIN_PROMPTS:
        return [ComparedEstimate(float(mean), None, None, num_prompts, 1.0) for mean in means]
    generator = np.random.default_rng(seed)
    counts = generator.multinomial(num_prompts, np.full(num_prompts, 1 / num_prompts), size=num_resamples)
    resampled = counts @ by_prompt / num_prompts  # [num_resamples, K]
    of_seeds = np.array(spread.variances) / [table.shape[1] for table in values]
    resampled += np.sqrt(of_seeds) * generator.standard_t(spread.degrees, size=(num_resamples, 1))
    tail = expanded_tail((1 - LEVEL) / 2, num_prompts)
    low, high = np.quantile(resampled, [tail, 1 - tail], axis=0)
    tolerance = NOTHING * (1 + np.abs(by_prompt).max(axis=0))  # sums of the same numbers differ in the last bit
    below, above = (resampled <= tolerance).mean(axis=0), (resampled >= -tolerance).mean(axis=0)
    crossing = np.maximum(np.minimum(below, above), 0.5 / num_resamples)
    p = two_sided_p(crossing, num_prompts)
    found = []
    for k, mean in enumerate(means.tolist()):
        bounds = find_bounds(values[k], paired)
        same = np.ptp(by_prompt[:, k]) <= tolerance[k]
        if same and not of_seeds[k]:
            found.append(_constant(0.0 if abs(mean) <= tolerance[k] else mean, num_prompts, bounds))
            continue
        ends, level = (low[k], high[k]), p[k]
        if num_prompts < ENOUGH_PROMPTS and not same:
            error = by_prompt[:, k].std(ddof=1) / np.sqrt(num_prompts)
            half = stats.t.ppf((1 + LEVEL) / 2, num_prompts - 1) * error
            ends = min(low[k], mean - half), max(high[k], mean + half)
            level = max(level, 2 * stats.t.sf(abs(mean) / error, num_prompts - 1))
        found.append(ComparedEstimate(mean, *clip(*ends, bounds), num_prompts, float(level)))
    return found


def _constant(mean: float, num_prompts: int, bounds: Bounds | None) -> ComparedEstimate:
    """Where all prompts have the same value; its p-value is the level at which `constant_interval` ends at 0."""
    if bounds is None:
        return ComparedEstimate(mean, None, None, num_prompts, 1.0)
    other = bounds[0] if mean > 0 else bounds[1]  # the value that would have to come instead
    p = (other / (other - mean)) ** num_prompts
    return ComparedEstimate(mean, *constant_interval(mean, num_prompts, bounds), num_prompts, float(p))


def expanded_tail(tail: float, num_prompts: int) -> float:
    """Share of resamples to leave out at either end for a nominal `tail` (Hesterberg 2015, section 5.3)."""
    spread = np.sqrt(num_prompts / (num_prompts - 1))
    return float(stats.norm.cdf(spread * stats.t.ppf(tail, num_prompts - 1)))


def two_sided_p(crossing: np.ndarray, num_prompts: int) -> np.ndarray:
    """Twice the nominal tail whose expansion is `crossing`, the inverse of `expanded_tail`."""
    spread = np.sqrt(num_prompts / (num_prompts - 1))
    return np.minimum(1.0, 2 * stats.t.cdf(stats.norm.ppf(crossing) / spread, num_prompts - 1))
