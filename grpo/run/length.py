"""Going on with other `max_steps`: possible where the steps that are done would have been the same.

Prompts, seeds and noise of a step do not depend on how many follow. The learning rate may: a constant one does not, a
cosine or a line is laid out from the first step to the last. What a finished run needs besides is in
`blip3o_grpo.evaluation.reopened`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from blip3o_grpo.configs import RunConfig, WarmstartConfig

OtherLength = Callable[[Any, Any, int], str | None]
"""Configuration of the run, the one asked for, steps done (0: the finished run's checkpoints are gone) -> why not."""
HORIZONS = ("linear", "cosine", "cosine_with_min_lr")
"""Schedules of the learning rate that end with the run."""


def other_length(known: RunConfig, asked: RunConfig, done: int) -> str | None:
    """Why a run of `train` cannot go on with other `trainer.max_steps`, and what can be done instead; None: it can."""
    before, schedule = known.trainer.max_steps, asked.trainer.lr_scheduler_type
    if schedule in HORIZONS:
        return (
            f"the {schedule} learning rate was laid out for {before} steps, so those done would have been others; give "
            f"{before}, or another run_dir (a new run can start from this one's result: policy.path=RUN/policy)"
        )
    if not done:
        return "the checkpoints of its steps are gone; give another run_dir"
    if asked.rollout.max_staleness and done == before:
        return "with rollout.max_staleness=1 its last step would have drawn the next one's; give another run_dir"
    if asked.trainer.max_steps < done:
        return f"{done} steps are done; give {done} or more"
    return None


def other_warmstart_length(known: WarmstartConfig, asked: WarmstartConfig, done: int) -> str:
    """The same of a warm start, whose learning rate is always a cosine."""
    return (
        f"the cosine learning rate was laid out for {known.max_steps} steps, so those done would have been others; "
        f"give {known.max_steps}, or another run_dir (a new warm start can begin with this one's result: "
        "policy.path=RUN/policy)"
    )
