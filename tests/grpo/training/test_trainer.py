"""The trainer's seams with TRL: exact log-probs, learning, masked groups, the mismatch bound, exact resume."""

import pytest
import torch
from transformers import Qwen3ForCausalLM

from blip3o_grpo.policies import load_config
from blip3o_grpo.run.folder import RunFolder
from blip3o_grpo.run.metrics import read_metrics
from blip3o_grpo.training.mismatch import MismatchError


@pytest.fixture(scope="module")
def trained(make_config, run_toy):
    """Twelve steps on a toy reward: the share of tokens from the lower half of the codebook."""
    config = make_config(trainer={"max_steps": 12, "micro_batch_size": 4}, checkpoint={"every_steps": 6})
    return (*run_toy(config), config)


def test_the_reward_rises(trained):
    rewards = [line["reward/mean"] for line in trained[2]]
    assert len(rewards) == 12
    assert sum(rewards[-3:]) / 3 > sum(rewards[:3]) / 3 + 0.15


def test_every_step_syncs_its_weights_and_agrees_with_the_sampler(trained):
    _, pipeline, metrics, _ = trained
    assert pipeline.versions == list(range(12))
    assert max(line["mismatch/mean_abs"] for line in metrics) < 1e-5
    assert max(line["kl/mismatch"] for line in metrics) < 1e-6
    assert metrics[0]["kl/reference"] == pytest.approx(0, abs=1e-6)
    assert metrics[-1]["kl/reference"] > 0.01


def test_metrics_have_the_projects_names(trained):
    expected = {"reward/mean", "reward/target", "kl/mismatch", "time/sample", "time/decode", "time/score", "time/train"}
    assert expected <= trained[2][0].keys()
    assert not [name for name in trained[2][0] if name.startswith(("rewards/", "completions/"))]


def test_log_probs_are_those_of_the_full_computation(trained, policy_path, prompts):
    trainer = trained[0]
    model = Qwen3ForCausalLM(load_config(policy_path)).eval()
    model.load_state_dict(trainer.model.state_dict())
    tokens = trainer.action_space
    encoded = [trainer.encoder.encode(prompt.text) for prompt in prompts[2:6]]
    assert len({len(ids) for ids in encoded}) > 1  # left padding is part of what is tested
    ids, mask = trainer.encoder.pad(encoded)
    image = torch.randint(tokens.start, tokens.stop, (4, tokens.num_tokens), generator=torch.Generator().manual_seed(0))
    ids, mask = torch.cat([ids, image], 1), torch.cat([mask, torch.ones_like(image)], 1)
    with torch.no_grad():
        ours, entropy = trainer.logprobs(trainer.model, ids, mask, batch_size=3, entropy=True)
        for row in range(4):  # one by one, without padding, over the full vocabulary
            single = ids[row, mask[row].bool()][None]
            logits = model(single).logits[0, -tokens.num_tokens - 1 : -1, tokens.start : tokens.stop]
            full = (logits / trainer.temperature).log_softmax(-1)
            chosen = full.gather(-1, (image[row] - tokens.start)[:, None])[:, 0]
            torch.testing.assert_close(ours[row], chosen, atol=1e-5, rtol=0)
            torch.testing.assert_close(entropy[row], -(full.exp() * full).sum(-1), atol=1e-5, rtol=0)


def test_only_the_newest_checkpoints_are_kept_complete(trained):
    folder = RunFolder(trained[3].run_dir)
    assert folder.newest_step() == 12
    names = {path.name for path in folder.newest_checkpoint().iterdir()}
    assert {"model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"} <= names
    assert not list(folder.staging.glob("checkpoint-*"))


def test_a_stopped_and_resumed_run_ends_like_an_uninterrupted_one(make_config, run_toy):
    options = {"trainer": {"max_steps": 5, "micro_batch_size": 4}, "checkpoint": {"every_steps": 2}}
    _, _, whole = run_toy(make_config(**options))
    config = make_config(**options)
    with pytest.raises(KeyboardInterrupt):  # steps 0..2 are done, the checkpoint is after step 2
        run_toy(config, stop_at=4)
    assert [line["step"] for line in read_metrics(RunFolder(config.run_dir).metrics)] == [1, 2, 3]
    _, pipeline, resumed = run_toy(config)
    assert pipeline.versions == [2, 3, 4]
    assert [line["step"] for line in resumed] == [1, 2, 3, 4, 5]
    for ours, theirs in zip(resumed, whole, strict=True):
        assert ours.keys() == theirs.keys()
        for name in ours:
            if not name.startswith("time/"):
                assert ours[name] == pytest.approx(theirs[name], abs=1e-4), name


def test_a_sampler_that_disagrees_stops_the_run(make_config, run_toy):
    with pytest.raises(MismatchError, match=r"step 1: .* differ by 0\.05 nats.*trainer\.mismatch_bound=0\.01"):
        run_toy(make_config(), shift=0.05)


def test_a_dropped_group_changes_nothing_for_the_others(make_config, run_toy):
    """Weights after a step with one group dropped are those of a step that only ever had the other group."""

    def after_one_step(num_prompts, **options):
        config = make_config(
            rollout={"prompts_per_step": num_prompts}, trainer={"max_steps": 1, "beta": 0.1, "learning_rate": 1e-4}
        )
        trainer, _, metrics = run_toy(config, num_prompts, **options)
        return trainer.model.state_dict(), metrics[0]

    alone, lone_metrics = after_one_step(1)
    dropped, metrics = after_one_step(2, drop=("BANK",))
    assert metrics["groups/dropped"] == 1
    assert metrics["reward/mean"] == pytest.approx(lone_metrics["reward/mean"])
    for name, weight in alone.items():
        torch.testing.assert_close(dropped[name], weight, atol=1e-5, rtol=0)


def test_a_reward_that_does_not_apply_is_not_a_zero(make_config, run_toy):
    def reward(tokens, prompt):
        return float((tokens < 32).mean()) if prompt.id in ("TAXI", "BANK", "CAFE", "EXIT") else None

    _, _, metrics = run_toy(make_config(trainer={"max_steps": 3}), reward=reward)
    assert all(line["reward/mean"] is None or 0.3 < line["reward/mean"] < 0.7 for line in metrics)
