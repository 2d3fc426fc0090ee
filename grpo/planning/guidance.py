"""Whether guidance acts at all: the noise levels of diffusion steps hang on the policy's scheduler."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

from blip3o_grpo.configs import ConfigError, RunConfig
from blip3o_grpo.policies.kinds import KINDS

EVERYWHERE = (0.0, 1.0)


def check_guidance(
    config: RunConfig, policy_path: Path, ways: Iterable[tuple[int, tuple[float, float]]] | None = None
) -> None:
    """Check the policy's noise levels.

    Args:
        ways: numbers of diffusion steps, each with the noise levels between which guidance is to act; None: those of
            the configuration's rollouts and evaluations.

    Raises:
        ConfigError: there is guidance, and no step's level lies where it is to act.
    """
    rollout, evaluated = config.rollout, config.evaluation.num_diffusion_steps
    if ways is None:
        numbers = (rollout.num_diffusion_steps, evaluated or rollout.num_diffusion_steps)
        ways = [(number, rollout.guidance_interval) for number in numbers]
    narrow = [way for way in ways if way[1] != EVERYWHERE]
    if rollout.guidance_scale == 1 or not narrow:
        return
    from blip3o_grpo.policies.blip3o_next.denoising import guided_steps, sampler

    shapes = KINDS[config.policy.type].shapes(policy_path)
    for number, interval in narrow:
        steps = sampler(shapes, number)
        if not any(guided_steps(steps, rollout.guidance_scale, interval)):
            levels = steps.sigmas[:-1].tolist()
            nearest = min(levels, key=lambda level: min(abs(level - end) for end in interval))
            low = math.floor(1000 * min(interval[0], nearest)) / 1000  # rounded outwards, so that it holds the level
            high = math.ceil(1000 * max(interval[1], nearest)) / 1000
            shown = ", ".join(f"{level:.3g}" for level in levels[:8]) + (", ..." if number > 8 else "")
            raise ConfigError(
                f"rollout.guidance_interval=[{interval[0]:g}, {interval[1]:g}] holds no noise level of {number} "
                f"diffusion steps with this policy ({shown}), so nothing would be guided; the nearest that holds one "
                f"is [{low:g}, {high:g}], and rollout.guidance_scale=1 is no guidance"
            )
