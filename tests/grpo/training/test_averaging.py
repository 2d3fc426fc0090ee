"""EMA of the weights: the average is what the formula says, evaluations and the saved policy use what was chosen."""

import pytest
import torch
from safetensors.torch import load_file

from blip3o_grpo.policies import BLIP3oNext
from blip3o_grpo.run.folder import RunFolder
from blip3o_grpo.training.averaging import AveragedWeights
from blip3o_grpo.training.checkpoint_weights import load_trained


class State:
    def __init__(self, global_step):
        self.global_step = global_step


def test_the_average_follows_its_formula_and_warms_up(tmp_path):
    model = torch.nn.Linear(2, 1, bias=False)
    model.weight.data.fill_(1.0)
    averaged = AveragedWeights(0.25, tmp_path)
    averaged.on_train_begin(None, State(0), None, model=model)
    expected = 1.0
    for step in (1, 2, 3, 4):
        model.weight.data.fill_(step + 1.0)
        averaged.on_step_end(None, State(step), None)
        decay = min(0.25, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * (step + 1.0)
    torch.testing.assert_close(averaged.full()["weight"], torch.full((1, 2), expected))
    with averaged.applied():
        torch.testing.assert_close(model.weight.detach(), torch.full((1, 2), expected))
    assert model.weight.detach().tolist() == [[5.0, 5.0]]


@pytest.mark.parametrize("use", ["averaged", "last"])
def test_evaluations_and_the_saved_policy_use_the_chosen_weights(make_config, run_toy, policy_path, use):
    config = make_config(
        trainer={"max_steps": 3, "ema": {"decay": 0.9, "use": use}},
        evaluation={"every_steps": 1, "num_prompts": 1, "images_per_prompt": 2},
        checkpoint={"every_steps": 3},
    )
    trainer, pipeline, metrics = run_toy(config)
    assert pipeline.versions == [0, 1, 1, 2, 2]  # every evaluation's weights, then the next rollout's own
    assert max(line["mismatch/mean_abs"] for line in metrics) < 1e-5
    last, averages = trainer.model.state_dict(), trainer.averaged.full()
    assert not torch.equal(last["lm_head.weight"], averages["lm_head.weight"])
    checkpoint = RunFolder(config.run_dir).newest_checkpoint()
    torch.testing.assert_close(load_file(checkpoint / "averaged.safetensors"), averages)
    saved = load_trained(BLIP3oNext.from_pretrained(policy_path, parts=("ar",)).ar, checkpoint, config).state_dict()
    torch.testing.assert_close(saved["lm_head.weight"], (averages if use == "averaged" else last)["lm_head.weight"])
    trainer.sync_evaluated_weights()
    published = pipeline.ar.state_dict()["lm_head.weight"]
    torch.testing.assert_close(published, (averages if use == "averaged" else last)["lm_head.weight"])


def test_a_run_with_an_average_trains_as_one_without(make_config, run_toy):
    plain, *_ = run_toy(make_config(trainer={"max_steps": 2}))
    averaged, *_ = run_toy(make_config(trainer={"max_steps": 2, "ema": {"decay": 0.9}}))
    for name, tensor in plain.model.state_dict().items():
        torch.testing.assert_close(averaged.model.state_dict()[name], tensor, atol=0, rtol=0)
