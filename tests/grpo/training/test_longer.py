"""A run of three steps that is then given six is the run of six steps: metrics and weights, to the last digit."""

import pytest
import torch

from blip3o_grpo.run.folder import RunFolder


@pytest.mark.parametrize("schedule", ["constant", "constant_with_warmup"])
def test_a_longer_run_is_what_it_would_have_been_from_the_start(make_config, run_toy, schedule):
    section = {"micro_batch_size": 4, "lr_scheduler_type": schedule, "warmup_steps": 4, "ema": {"decay": 0.5}}
    whole, parts = (make_config(trainer=section | {"max_steps": 6}, checkpoint={"every_steps": 2}) for _ in range(2))
    shorter = parts.model_copy(update={"trainer": parts.trainer.model_copy(update={"max_steps": 3})})
    expected, _, metrics = run_toy(whole)
    run_toy(shorter)
    folder = RunFolder(parts.run_dir)
    assert folder.newest_step() == 3
    folder.check(parts)
    found, pipeline, longer = run_toy(parts)
    assert pipeline.versions == [3, 4, 5]
    assert [line["step"] for line in longer] == [1, 2, 3, 4, 5, 6]
    for ours, theirs in zip(longer, metrics, strict=True):
        assert ours.keys() == theirs.keys()
        for name in ours:
            if not name.startswith("time/"):
                assert ours[name] == pytest.approx(theirs[name], abs=1e-6), name
    for name, tensor in expected.model.state_dict().items():
        torch.testing.assert_close(found.model.state_dict()[name], tensor, atol=1e-6, rtol=0, msg=name)
