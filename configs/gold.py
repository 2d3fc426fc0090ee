"""What `guards.gold` needs of the rest of a run: rewards that nothing trains on, and evaluations to watch them at."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

FEWEST_PROMPTS = 4
"""A mean over fewer prompts has no interval, so no fall is ever beyond its noise."""
SHARE = 10
"""An evaluation every so manieth part of a run is what is proposed."""


def check_gold(
    gold: Sequence[str],
    weights: Mapping[str, float],
    *,
    evaluated_every: int,
    max_steps: int,
    num_iterations: int,
    num_prompts: int,
    keep_best: int,
) -> None:
    """Refuse gold that could not be watched.

    Args:
        gold: `guards.gold`.
        weights: of the run's rewards, by name.
        evaluated_every: `evaluation.every_steps`.
        max_steps: `trainer.max_steps`.
        num_iterations: `trainer.num_iterations`.
        num_prompts: `evaluation.num_prompts`.
        keep_best: `checkpoint.keep_best`.

    Raises:
        ValueError: naming the key and the nearest right value.
    """
    for name in gold:
        if name not in weights:
            near = difflib.get_close_matches(name, weights, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(weights)}"
            raise ValueError(f"guards.gold: there is no reward {name!r}; {hint}")
        if weights[name]:
            free = [other for other, weight in weights.items() if not weight]
            nearest = (difflib.get_close_matches(name, free, n=1, cutoff=0) or [None])[0]
            instead = f"name {nearest!r}, or give" if nearest else "give"
            raise ValueError(
                f"guards.gold: reward {name!r} has weight {weights[name]:g}, so training buys it; gold is what nothing "
                f"trains on: {instead} {name!r} weight 0"
            )
        if gold.count(name) > 1:
            raise ValueError(f"guards.gold: {name!r} is named twice")
    if gold and not evaluated_every:
        every = max(max_steps // SHARE // num_iterations, 1) * num_iterations
        raise ValueError(
            f"guards.gold: gold is watched at evaluations during training, and evaluation.every_steps is 0; give "
            f"evaluation.every_steps: {every}"
        )
    if gold and num_prompts < FEWEST_PROMPTS:
        raise ValueError(
            f"guards.gold: of evaluation.num_prompts={num_prompts} prompts nothing is ever known beyond their noise; "
            f"give {FEWEST_PROMPTS} or more"
        )
    if gold and not keep_best:
        raise ValueError("guards.gold: checkpoint.keep_best is 0, so the best by gold would not stay; give 1")
