"""Guidance that would act in no diffusion step is refused, with the policy's own noise levels."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from blip3o_grpo.configs import ConfigError, load_run_config
from blip3o_grpo.planning.guidance import check_guidance
from blip3o_grpo.policies.blip3o_next.config import resolve_policy_path

CONFIGS = Path(__file__).parents[3] / "configs"


def check(low: float, high: float, *overrides: str, name: str = "tiny_ocr") -> None:
    config = load_run_config(CONFIGS / f"{name}.yaml", [f"rollout.guidance_interval=[{low}, {high}]", *overrides])
    check_guidance(config, resolve_policy_path(config.policy.path))


@pytest.mark.parametrize("name", ["tiny_ocr", "tiny_blip3o"])
def test_an_interval_without_a_level_is_refused_and_the_one_it_proposes_is_not(name):
    three = ("rollout.num_diffusion_steps=3", "evaluation.num_diffusion_steps=3")  # levels 1, .667 and .333
    with pytest.raises(ConfigError, match=r"\[0.4, 0.6\] holds no noise level of 3 .*\(1, 0.667, 0.333\)") as error:
        check(0.4, 0.6, *three, name=name)
    low, high = map(float, re.search(r"holds one is \[(.*), (.*)\],", str(error.value)).groups())
    assert (low, high) == (0.4, 0.667) or (low, high) == (0.333, 0.6)
    check(low, high, *three, name=name)


def test_evaluations_are_guided_too():
    with pytest.raises(ConfigError, match="no noise level of 2 diffusion steps"):
        check(0.7, 0.8, "rollout.num_diffusion_steps=4", "evaluation.num_diffusion_steps=2")


def test_no_guidance_needs_no_level():
    check(0.6, 0.7, "rollout.guidance_scale=1")
