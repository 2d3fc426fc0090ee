"""Rewards of weight 0 are measured and change nothing: the same run without them is the same run."""

from dataclasses import replace

import pytest

from blip3o_grpo.rank import run_training
from blip3o_grpo.run.folder import RunFolder
from blip3o_grpo.run.metrics import read_metrics

TRAINED, MEASURED = {"name": "target"}, {"name": "measured", "type": "target", "weight": 0}


def train(config, fake_pipeline, prompts):
    """A run in which `target` applies to every other prompt only, and `measured` to all."""
    folder = RunFolder(config.run_dir)
    folder.prepare(config)
    pipeline = fake_pipeline(config)
    collect = pipeline.collect

    def partly(*args, **kwargs):
        batch = collect(*args, **kwargs)
        groups = tuple(
            replace(group, rollouts=tuple(_rescored(rollout, group.prompt) for rollout in group.rollouts))
            for group in batch.groups
        )
        return replace(batch, groups=groups)

    def _rescored(rollout, prompt):
        value = rollout.rewards["target"]
        scores = {"target": value if prompts.index(prompt) % 2 else None, "measured": 1 - value}
        return replace(rollout, rewards={name: scores[name] for name in rollout.rewards})

    pipeline.collect = partly
    run_training(config, prompts, prompts, pipeline)
    return read_metrics(folder.metrics)


@pytest.mark.parametrize("aggregation", ["sum_then_normalize", "normalize_then_sum"])
def test_a_measured_reward_changes_nothing(make_config, fake_pipeline, prompts, aggregation):
    section = {"max_steps": 2, "multi_objective_aggregation": aggregation}
    rollout = {"prompts_per_step": 4}
    without = make_config(trainer=section, rollout=rollout)
    measured = make_config(trainer=section, rollout=rollout, rewards=[TRAINED, MEASURED])
    plain, extra = (train(config, fake_pipeline, prompts) for config in (without, measured))
    for ours, theirs in zip(plain, extra, strict=True):
        interval = {f"interval/reward/measured/{part}" for part in ("low", "high", "n")}
        assert set(theirs) - set(ours) == {
            "reward/measured",
            "reward/measured_std",
            "time/score/measured",
            *interval,
        }
        for name in ours:
            if not name.startswith("time/"):
                assert theirs[name] == ours[name], name
        assert 0 < theirs["reward/measured"] < 1 and theirs["reward/measured_std"] > 0
    assert plain[0]["grad_norm"] > 0
