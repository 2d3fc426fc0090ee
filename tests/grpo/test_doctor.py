"""The doctor's measurements on a policy whose sampler is known to agree, or not to."""

import numpy as np
import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

from blip3o_grpo.cli import app
from blip3o_grpo.configs import RewardSection
from blip3o_grpo.doctor import (
    AGREEMENT,
    agreement_bound,
    decode_again,
    logprob_difference,
    reward_spread,
    show_reward,
)
from blip3o_grpo.policies import BLIP3oNext
from blip3o_grpo.rewards import adapt


@pytest.fixture(scope="module")
def policy(policy_path):
    return BLIP3oNext.from_pretrained(policy_path)


def collect(fake_pipeline, make_config, policy, prompts, **options):
    pipeline = fake_pipeline(make_config(), **options)
    pipeline.sync_weights(policy.ar.state_dict(), version=0)
    return pipeline.collect(prompts[2:4], step="doctor").groups


def test_agreement_is_measured_in_nats_per_token(fake_pipeline, make_config, policy, prompts):
    exact = collect(fake_pipeline, make_config, policy, prompts)
    assert logprob_difference(policy, exact, temperature=1.0).mean < 1e-5
    shifted = collect(fake_pipeline, make_config, policy, prompts, shift=0.05)
    assert logprob_difference(policy, shifted, temperature=1.0).mean == pytest.approx(0.05, abs=1e-4)


def test_spread_separates_tokens_from_noise(fake_pipeline, make_config, policy, prompts):
    """A reward that only counts which sibling it sees owes all its spread to the tokens."""
    calls = []

    class NumberInBatch:
        def __call__(self, batch):
            calls.append(len(batch))
            return [float(i) for i in range(len(batch))]

    groups = collect(fake_pipeline, make_config, policy, prompts)
    config = make_config(rollout={"num_diffusion_steps": 1})
    images = decode_again(policy, groups, config)
    spread = reward_spread(adapt(NumberInBatch()), groups, images)
    assert spread.shares() == {"tokens": 1.0, "noise": 0.0, "interaction": 0.0}
    assert calls == [4] * 8  # 2 prompts, 4 noise draws each, all siblings in one call


def test_every_reward_is_examined_by_its_own_name_and_options(
    fake_pipeline, make_config, policy, prompts, capsys, tmp_path
):
    (tmp_path / "beside.py").write_text("def half(images, prompts, metadata):\n    return [0.5 for _ in images]\n")
    groups = collect(fake_pipeline, make_config, policy, prompts)
    images = [np.zeros((4, 4, 8, 8, 3), np.uint8)] * len(groups)
    module = "tests.grpo.test_doctor"
    for section, words in (
        (RewardSection(name="flat", type=f"{module}:Constant", options={"value": 2.0}), "flat: never varied"),
        (RewardSection(name="absent", type=f"{module}:Constant", options={"value": None}), "absent: applies to none"),
        (RewardSection(name="far", runtime_env={"pip": ["x"]}), "far: has an environment of its own"),
        (RewardSection(name="calm", type=f"{module}:Guard"), "calm: did not vary on these prompts, as it should"),
        (RewardSection(name="mine", type="beside:half", folder=str(tmp_path)), "mine: never varied"),
        (RewardSection(name="order", type=f"{module}:Position"), "spread of order"),
    ):
        show_reward(section, groups, images, Console(width=200))
        assert words in capsys.readouterr().out


def test_the_bound_of_agreement_is_that_of_the_numbers_kind(make_config):
    assert agreement_bound(make_config()) == AGREEMENT
    low = make_config(policy={"dtype": "bfloat16"}, trainer={"mismatch_bound": 0.03})
    assert agreement_bound(low) == 0.03


class Constant:
    def __init__(self, value=0.0):
        self.value = value

    def __call__(self, batch):
        return [self.value] * len(batch)


class Guard(Constant):
    expects_spread = False


class Position:
    def __call__(self, batch):
        return [float(i) for i in range(len(batch))]


def test_quick_doctor_lists_what_is_installed(policy_path):
    result = CliRunner().invoke(app, ["doctor", "--quick", "--policy", str(policy_path)])
    assert result.exit_code == 0, result.output
    assert all(name in result.output for name in ("trl", torch.__version__, "CPU cores"))
