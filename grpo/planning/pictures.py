"""Do the pictures of a step, or of an evaluation, fit into memory? Known before anything starts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import psutil

from blip3o_grpo.configs import ConfigError, RunConfig
from blip3o_grpo.policies.kinds import KINDS
from blip3o_grpo.rollout import Prompt

BYTES_PER_PIXEL = 3


def check_pictures(config: RunConfig, policy: Path, heldout: Sequence[Prompt]) -> None:
    """Refuse a step or an evaluation whose pictures alone are more than this machine's memory.

    Raises:
        ConfigError: with the numbers that decide.
    """
    rollout, evaluation = config.rollout, config.evaluation
    side = KINDS[config.policy.type].image_side(policy)
    steps = 1 + rollout.max_staleness
    what = "rollout.prompts_per_step x rollout.group_size"
    what += " x rollout.noises_per_completion" if rollout.noises_per_completion > 1 else ""
    what += " of two steps" if steps > 1 else ""
    require_memory(steps * rollout.images_per_step, side, what)
    measured = min(evaluation.num_prompts, len(heldout))
    require_memory(measured * evaluation.images_per_prompt, side, "prompts x evaluation.images_per_prompt")


def require_memory(number: int, side: int, what: str) -> None:
    """Refuse so many pictures at once, `side` x `side` px, if they alone are more than this machine's memory.

    Raises:
        ConfigError: `what` says which settings decide on the number.
    """
    needed, there = number * side**2 * BYTES_PER_PIXEL, psutil.virtual_memory().total
    if needed > there:
        raise ConfigError(
            f"{what}: {number} pictures of {side} x {side} px are {needed / 1e9:.0f} GB, "
            f"and this machine has {there / 1e9:.0f} GB of memory"
        )
