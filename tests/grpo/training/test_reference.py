"""A reference that follows the policy moves as its formula says, and a resumed run has the one it had."""

import pytest
import torch

from blip3o_grpo.run.folder import RunFolder

SECTION = {"max_steps": 4, "beta": 0.5, "sync_ref_model": True, "ref_model_sync_steps": 2, "ref_model_mixup_alpha": 0.3}
NAME = "model.layers.0.mlp.up_proj.weight"


def weights_of(trainer):
    return trainer.model.state_dict()[NAME].clone()


def test_the_reference_takes_its_share_of_the_policy_after_the_steps_that_are_due(make_config, run_toy):
    start, *_ = run_toy(make_config(trainer=SECTION | {"max_steps": 1, "learning_rate": 1e-30}))
    still, *_ = run_toy(make_config(trainer=SECTION | {"max_steps": 1}))
    moved, *_ = run_toy(make_config(trainer=SECTION | {"max_steps": 3}))
    ends, *_ = run_toy(make_config(trainer=SECTION | {"max_steps": 2}))
    torch.testing.assert_close(still.ref_model.state_dict()[NAME], weights_of(start), atol=0, rtol=0)
    expected = 0.3 * weights_of(ends) + 0.7 * weights_of(start)
    assert (expected - weights_of(start)).abs().max() > 1e-4
    torch.testing.assert_close(moved.ref_model.state_dict()[NAME], expected, atol=1e-7, rtol=0)


def test_the_kl_is_to_the_moved_reference(make_config, run_toy):
    """With alpha 1 after every step it is 0 again at the start of each."""
    section = SECTION | {"ref_model_sync_steps": 1, "ref_model_mixup_alpha": 1.0}
    _, _, metrics = run_toy(make_config(trainer=section))
    assert [line["kl/reference"] for line in metrics] == pytest.approx([0.0] * 4, abs=1e-6)
    _, _, fixed = run_toy(make_config(trainer=section | {"sync_ref_model": False}))
    assert fixed[-1]["kl/reference"] > 1e-3


@pytest.mark.parametrize("updates", [1, 2])
def test_a_resumed_run_has_the_reference_that_it_had(make_config, run_toy, updates):
    section = SECTION | {"max_steps": 6, "num_iterations": updates}
    whole, _, metrics = run_toy(make_config(trainer=section))
    config = make_config(trainer=section)
    with pytest.raises(KeyboardInterrupt):
        run_toy(config, stop_at=5)
    assert RunFolder(config.run_dir).newest_step() == 4
    found, _, resumed = run_toy(config)
    for ours, theirs in zip(resumed, metrics, strict=True):
        for name in ("kl/reference", "loss", "grad_norm"):
            assert ours[name] == pytest.approx(theirs[name], abs=1e-6), (ours["step"], name)
    for name, tensor in whole.ref_model.state_dict().items():
        torch.testing.assert_close(found.ref_model.state_dict()[name], tensor, atol=1e-7, rtol=0, msg=name)
    torch.testing.assert_close(weights_of(found), weights_of(whole), atol=1e-6, rtol=0)


def test_a_steered_entropy_goes_on_after_a_resume(make_config, run_toy):
    section = {"use_adaptive_entropy": True, "entropy_target": 100.0, "entropy_coef": 0.01, "max_steps": 5}
    _, _, metrics = run_toy(make_config(trainer=section))
    config = make_config(trainer=section)
    with pytest.raises(KeyboardInterrupt):
        run_toy(config, stop_at=4)
    _, _, resumed = run_toy(config)
    for ours, theirs in zip(resumed, metrics, strict=True):
        for name in ("entropy_coef", "entropy", "loss", "grad_norm"):
            assert ours[name] == pytest.approx(theirs[name], abs=1e-6), (ours["step"], name)
    assert resumed[-1]["entropy_coef"] == pytest.approx(0.035)
