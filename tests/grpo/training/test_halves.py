"""Runs in which the diffusion head learns, alone or with the tokens, on the in-process pipeline with a real head."""

import pytest
import torch
from safetensors.torch import load_file

from blip3o_grpo.policies import BLIP3oNext
from blip3o_grpo.run.folder import RunFolder
from blip3o_grpo.training.checkpoint_weights import load_trained_head

HEAD = {"learning_rate": 1e-3}
ROLLOUT = {"noises_per_completion": 2, "num_diffusion_steps": 2, "group_size": 2}
FLOW = {"type": "flow_grpo", "epsilon": 0.1}


def settings(learn, steps, **head):
    return {
        "learn": learn,
        "head": HEAD | head,
        "rollout": ROLLOUT,
        "trainer": {"max_steps": steps, "min_group_std": 0.0},
        "checkpoint": {"every_steps": 2},
    }


@pytest.fixture(scope="module")
def head_alone(make_config, run_toy):
    config = make_config(**settings(["head"], 3))
    return (*run_toy(config), config)


def test_the_head_learns_and_the_tokens_stay(head_alone, policy_path):
    trainer, pipeline, metrics, config = head_alone
    start = BLIP3oNext.from_pretrained(policy_path)
    for name, value in trainer.model.state_dict().items():
        assert torch.equal(value, start.ar.state_dict()[name]), name
    assert any(
        not torch.equal(value, start.sana.state_dict()[name])
        for name, value in pipeline.painter.sana.state_dict().items()
    )
    assert metrics[-1]["reward/mean"] > metrics[0]["reward/mean"] + 0.1
    assert pipeline.versions == [0, 1, 2]


def test_its_metrics_are_logged(head_alone):
    wanted = {
        "head/loss",
        "head/grad_norm",
        "head/kl",
        "head/skipped",
        "variance/tokens",
        "variance/noise",
        "time/head",
    }
    assert all(wanted <= line.keys() for line in head_alone[2])
    assert head_alone[2][0]["head/kl"] == pytest.approx(0, abs=1e-9)


def test_a_checkpoint_holds_the_head_that_painted(head_alone, policy_path):
    trainer, _, _, config = head_alone
    policy = BLIP3oNext.from_pretrained(policy_path)
    weights = load_trained_head(policy, RunFolder(config.run_dir).newest_checkpoint(), config)
    for name, value in trainer.head.measured_weights().items():
        assert torch.equal(weights[name], value), name
    assert torch.equal(policy.sana.state_dict()["proj_out.weight"], weights["sana.proj_out.weight"])


@pytest.mark.parametrize(
    ("learn", "head"),
    [
        (["tokens", "head"], {}),
        pytest.param(["head"], {}, marks=pytest.mark.slow),
        pytest.param(["tokens", "head"], {"method": FLOW}, marks=pytest.mark.slow),
    ],
)
def test_a_stopped_and_resumed_run_ends_like_an_uninterrupted_one(make_config, run_toy, learn, head):
    whole, _, _ = run_toy(make_config(**settings(learn, 4, **head)))
    config = make_config(**settings(learn, 4, **head))
    with pytest.raises(KeyboardInterrupt):
        run_toy(config, stop_at=4)
    assert RunFolder(config.run_dir).newest_step() == 2
    again, pipeline, _ = run_toy(config)
    assert pipeline.versions == [2, 3]
    for name, value in whole.head.measured_weights().items():
        torch.testing.assert_close(again.head.measured_weights()[name], value, atol=1e-6, rtol=1e-5)
    for name, value in whole.model.state_dict().items():
        torch.testing.assert_close(again.model.state_dict()[name], value, atol=1e-5, rtol=1e-4)


def test_both_halves_learn_from_the_same_rollouts(make_config, run_toy, policy_path):
    trainer, pipeline, metrics = run_toy(make_config(**settings(["tokens", "head"], 2)))
    start = BLIP3oNext.from_pretrained(policy_path)
    assert not torch.equal(trainer.model.lm_head.weight, start.ar.lm_head.weight)
    assert not torch.equal(pipeline.painter.sana.proj_out.weight, start.sana.proj_out.weight)
    assert metrics[0]["mismatch/mean_abs"] < 1e-5 and metrics[0]["head/grad_norm"] > 0


def test_tokens_are_judged_by_the_mean_of_their_images(make_config, run_toy):
    """Each of three images is .1 better than the one before, which no token has to do with."""
    options = {"trainer": {"max_steps": 1}, "rollout": {"num_diffusion_steps": 1}}
    once, _, one = run_toy(make_config(**options))
    options["rollout"]["noises_per_completion"] = 3
    thrice, _, three = run_toy(make_config(**options))
    assert three[0]["reward/mean"] == pytest.approx(one[0]["reward/mean"] + 0.1)
    for name, value in once.model.state_dict().items():
        torch.testing.assert_close(thrice.model.state_dict()[name], value, atol=1e-4, rtol=1e-4)  # a step is 1e-3


def test_averages_are_kept_and_measured(make_config, run_toy):
    sections = settings(["head"], 2)
    sections["trainer"]["ema"] = {"decay": 0.9}
    config = make_config(**sections)
    trainer, _, _ = run_toy(config)
    saved = load_file(RunFolder(config.run_dir).newest_checkpoint() / "head_averaged.safetensors")
    for name, value in trainer.head.measured_weights().items():
        if name in saved:
            assert torch.equal(saved[name], value), name
