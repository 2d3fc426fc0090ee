"""The doctor's measurements on a policy whose sampler is known to agree, or not to."""

import pytest
import torch
from typer.testing import CliRunner

import blip3o_grpo.doctor
from blip3o_grpo.cli import app
from blip3o_grpo.doctor import logprob_difference, reward_spread
from blip3o_grpo.policies import BLIP3oNext


@pytest.fixture(scope="module")
def policy(policy_path):
    return BLIP3oNext.from_pretrained(policy_path)


def collect(fake_pipeline, make_config, policy, prompts, **options):
    pipeline = fake_pipeline(make_config(), **options)
    pipeline.sync_weights(policy.ar.state_dict(), version=0)
    return pipeline.collect(prompts[2:4], step="doctor").groups


def test_agreement_is_measured_in_nats_per_token(fake_pipeline, make_config, policy, prompts):
    exact = collect(fake_pipeline, make_config, policy, prompts)
    assert logprob_difference(policy, exact, temperature=1.0) < 1e-5
    shifted = collect(fake_pipeline, make_config, policy, prompts, shift=0.05)
    assert logprob_difference(policy, shifted, temperature=1.0) == pytest.approx(0.05, abs=1e-4)


def test_spread_separates_tokens_from_noise(fake_pipeline, make_config, policy, prompts, monkeypatch):
    """A reward that only counts which noise was drawn owes all its spread to the noise."""
    calls = []

    class NumberInBatch:
        def __call__(self, batch):
            calls.append(len(batch))
            return [float(i) for i in range(len(batch))]

    monkeypatch.setattr(blip3o_grpo.doctor, "build_reward", lambda name: NumberInBatch())
    groups = collect(fake_pipeline, make_config, policy, prompts)
    spread = reward_spread(policy, groups, num_diffusion_steps=1, guidance_scale=2.0)
    assert spread.shares() == {"tokens": 0.0, "noise": 1.0, "interaction": 0.0}
    assert calls == [4] * 8  # 2 prompts, 4 token sequences each, 4 noise draws


def test_quick_doctor_lists_what_is_installed(policy_path):
    result = CliRunner().invoke(app, ["doctor", "--quick", "--policy", str(policy_path)])
    assert result.exit_code == 0, result.output
    assert all(name in result.output for name in ("trl", torch.__version__, "CPU cores"))
