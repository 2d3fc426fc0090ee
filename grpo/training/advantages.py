"""What keeps advantages honest where a group's rewards hardly differ: a floor of the standard deviation.

TRL divides by the standard deviation of a group's rewards (plus `EPSILON`), so differences of .001 between images that
are equally good count as much as those between right and wrong. Here it divides by `max(std, floor)` instead:

    advantage = (reward - mean of the group) / (max(std, floor) + EPSILON)

`max` rather than `std + floor`: groups whose spread is real keep TRL's number to the last digit, and only the others
shrink. Pure functions on arrays `[N, R]`: one row per completion of all ranks, group after group, one column per
trained reward, NaN where it did not apply. A reward scores all members of a group or none (`rows.py`).
"""

from __future__ import annotations

from typing import Literal

import numpy as np

EPSILON = 1e-4
"""What TRL adds to a standard deviation."""
Aggregation = Literal["sum_then_normalize", "normalize_then_sum"]
Scale = Literal["group", "batch", "none"]


def group_spreads(rewards: np.ndarray, weights: np.ndarray, group_size: int, aggregation: Aggregation) -> np.ndarray:
    """Standard deviations in each group of what is normalised, `[groups, K]`; NaN: no score, exactly 0: no difference.

    Args:
        rewards: `[N, R]`.
        weights: `[R]`.
        group_size: members of a group, at least 2.
        aggregation: `sum_then_normalize`: of the weighted sum, so K is 1; `normalize_then_sum`: of each reward, K is R.
    """
    groups = _grouped(rewards, group_size)
    if aggregation == "normalize_then_sum":
        return _std(groups)
    totals = np.where(np.isnan(groups).all(axis=2), np.nan, np.nansum(groups * weights, axis=2))
    return _std(totals)[:, None]


def spread_metrics(spreads: np.ndarray, floor: float) -> dict[str, float]:
    """Shares of the scored groups in which nothing differs, and in which something differs by less than the floor.

    Args:
        spreads: of all ranks' groups (`group_spreads`).
        floor: of the standard deviation.

    Returns:
        `groups/without_spread` and `groups/under_min_std`; nothing if no group has a score.
    """
    scored = spreads[~np.isnan(spreads).all(axis=1)]
    if not len(scored):
        return {}
    differing = scored > 0  # no score is no difference
    return {
        "groups/without_spread": float(1 - differing.any(axis=1).mean()),
        "groups/under_min_std": float((differing & (scored < floor)).any(axis=1).mean()),
    }


def floored_advantages(
    advantages: np.ndarray,
    rewards: np.ndarray,
    weights: np.ndarray,
    group_size: int,
    *,
    scale: Scale,
    aggregation: Aggregation,
    floor: float,
) -> np.ndarray:
    """TRL's advantages `[N]` with the floor; exactly 0 in groups without any difference.

    With `scale="batch"` the floor is one of the batch's standard deviation; with `"none"` there is none to floor. With
    `normalize_then_sum` (GDPO, arXiv 2601.05242) it is one of each reward's standard deviation in the group. What GDPO
    divides by afterwards, the standard deviation over the batch, is that without floor: else jitter would be blown up
    there, where all groups have no more than that.

    Args:
        advantages: TRL's, of the same rows as `rewards`.
        rewards, weights, group_size, aggregation: as in `group_spreads`.
        scale: TRL's `scale_rewards`; `normalize_then_sum` does not ask for it.
        floor: at least 0.
    """
    spreads = group_spreads(rewards, weights, group_size, aggregation)
    shrinks, theirs = _shrink(spreads, floor), advantages.reshape(-1, group_size)
    if aggregation == "normalize_then_sum":
        groups = _grouped(rewards, group_size)
        means = groups.mean(axis=1, keepdims=True)
        terms = weights * (groups - means) / (spreads[:, None] + EPSILON)
        without_floor = np.nansum(terms, axis=2)[~np.isnan(groups).all(axis=2)]
        floored = np.nansum(terms * shrinks[:, None], axis=2) / (without_floor.std(ddof=1) + EPSILON)
        reached = (shrinks < 1).any(axis=1)  # a comparison with NaN is False
        found = np.where(reached[:, None], floored, theirs)
    elif scale == "group":
        found = theirs * shrinks
    elif scale == "batch":
        totals = np.nansum(rewards * weights, axis=1)[~np.isnan(rewards).all(axis=1)]
        found = theirs * _shrink(totals.std(ddof=1), floor)
    else:
        found = theirs
    differing = (spreads > 0).any(axis=1)  # nowhere without a score
    return np.where(differing[:, None], found, 0.0).ravel()


def _shrink(spreads: np.ndarray | float, floor: float) -> np.ndarray | float:
    """By what the floor makes an advantage smaller; exactly 1 where it is not reached."""
    return (spreads + EPSILON) / (np.maximum(spreads, floor) + EPSILON)


def _grouped(rewards: np.ndarray, group_size: int) -> np.ndarray:
    return rewards.reshape(-1, group_size, rewards.shape[1])


def _std(values: np.ndarray) -> np.ndarray:
    """Over axis 1, unbiased; exactly 0 where all are the same, which a mean's rounding would hide."""
    return np.where(np.ptp(values, axis=1) == 0, 0.0, values.std(axis=1, ddof=1))
