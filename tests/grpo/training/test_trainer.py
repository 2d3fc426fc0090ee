"""The trainer's seams with TRL: exact log-probs, learning, masked groups, the mismatch bound, exact resume."""

import itertools

import numpy as np
import pytest
import torch
from transformers import Qwen3ForCausalLM

from blip3o_grpo.policies import load_config
from blip3o_grpo.rollout import RolloutError
from blip3o_grpo.run.folder import RunFolder
from blip3o_grpo.run.metrics import read_metrics
from blip3o_grpo.training.mismatch import MismatchError
from blip3o_grpo.training.trainer import ImageGRPOTrainer


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


@pytest.fixture(scope="module")
def first_gradient(make_config, run_toy):
    """Gradient of a first step on the first `num_prompts` prompts, and the step's metrics."""

    def after(num_prompts, loss_type, drop=()):
        section = {"max_steps": 1, "beta": 0.1, "loss_type": loss_type, "micro_batch_size": 2, "max_grad_norm": 1e9}
        config = make_config(rollout={"prompts_per_step": num_prompts}, trainer=section)
        seen = {}

        def see(trainer, norm):
            seen.update({name: value.grad.clone() for name, value in trainer.model.named_parameters()})

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ImageGRPOTrainer, "see_gradient_norm", see)
            return seen, run_toy(config, num_prompts, drop=drop)[2][0]

    return after


@pytest.fixture(scope="module")
def lone_gradient(first_gradient):
    return first_gradient(1, "grpo")


@pytest.mark.parametrize("loss_type", ["grpo", "dr_grpo", "bnpo", "dapo"])
def test_a_dropped_group_leaves_the_others_gradient_as_it_is(first_gradient, lone_gradient, loss_type):
    """The gradient is that of the other group alone, not half of it, whichever micro-batches its rows come into."""
    (expected, lone), (found, metrics) = lone_gradient, first_gradient(2, loss_type, drop=("BANK",))
    assert metrics["groups/dropped"] == 1
    for name, gradient in expected.items():
        assert (found[name] - gradient).norm() < 1e-4 * gradient.norm() + 1e-7, name
    for name in ("grad_norm", "loss", "entropy", "reward/mean", "reward/std", "kl/reference", "groups/without_spread"):
        assert metrics[name] == pytest.approx(lone[name], rel=1e-4, abs=1e-6), name


def test_a_sampler_that_disagrees_a_little_has_its_tokens_weighed_and_none_zeroed(make_config, run_toy):
    """Planted: .1 nats of noise a token, and one token that the trainer finds e times as likely, whose weight is cut.

    The noise is the same for every group, so all weights can be computed here.
    """
    noise = np.random.default_rng(0).normal(0, 0.1, (4, 49))
    noise[1, 2] = -1.0
    weights = np.minimum(np.exp(-noise), 2.0)
    config = make_config(trainer={"max_steps": 1, "mismatch_bound": 1.0})
    batches, (_, _, metrics) = recorded(run_toy, config, shift=noise)
    (used,) = [batch["importance_sampling_ratio"] for batch in batches]
    np.testing.assert_allclose(np.sort(used.numpy().ravel()), np.sort([*weights.ravel()] * 2), rtol=1e-4)
    assert metrics[0]["mismatch/weight_min"] == pytest.approx(weights.min(), rel=1e-4) and weights.min() > 0.68
    assert metrics[0]["mismatch/weight_mean"] == pytest.approx(weights.mean(), rel=1e-4)
    assert metrics[0]["mismatch/weight_max"] == 2.0
    left = weights.sum() ** 2 / (weights.size * (weights**2).sum())
    assert metrics[0]["mismatch/effective_sample_size"] == pytest.approx(left, rel=1e-4) and 0.97 < left < 0.99


def test_the_correction_by_whole_images_is_reached_from_the_recipe(make_config, run_toy):
    """TRL's own default: an image whose tokens together are more than 3 times as likely counts for nothing."""
    noise = np.repeat([[-1.6], [0.8], [0.32], [0.0]], 49, axis=1) / 49  # images' ratios e^1.6, e^-.8, e^-.32 and 1
    section = {"max_steps": 1, "mismatch_bound": 1.0, "vllm_importance_sampling_mode": "sequence_mask"}
    section |= {"vllm_importance_sampling_clip_max": 3.0, "vllm_importance_sampling_clip_min": 0.5}
    batches, (_, _, metrics) = recorded(run_toy, make_config(trainer=section), shift=noise)
    weights = np.array([0.0, 0.0, np.exp(-0.32), 1.0])
    (used,) = [batch["importance_sampling_ratio"] for batch in batches]
    np.testing.assert_allclose(np.sort(used.numpy().ravel()), np.sort([*weights] * 2), rtol=1e-4)
    left = weights.sum() ** 2 / (4 * (weights**2).sum())
    assert metrics[0]["mismatch/effective_sample_size"] == pytest.approx(left, rel=1e-4)
    assert metrics[0]["mismatch/weight_min"] == 0.0


def recorded(run_toy, config, **options):
    """A run, with the batches that its losses were computed on."""
    batches, original = [], ImageGRPOTrainer._compute_loss

    def compute(self, model, inputs):
        batches.append(inputs)
        return original(self, model, inputs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ImageGRPOTrainer, "_compute_loss", compute)
        return batches, run_toy(config, **options)


@pytest.mark.parametrize("aggregation", ["sum_then_normalize", "normalize_then_sum"])
@pytest.mark.parametrize("scale", ["group", "batch"])
def test_groups_without_spread_are_counted_whatever_is_divided_by(make_config, run_toy, aggregation, scale):
    """One of two groups has none; TRL counts by the batch's standard deviation where that divides."""

    def reward(tokens, prompt):
        return 0.5 if prompt.id == "BANK" else float((tokens < 32).mean())

    section = {"max_steps": 1, "scale_rewards": scale, "multi_objective_aggregation": aggregation}
    _, _, metrics = run_toy(make_config(trainer=section), 2, reward=reward)
    assert metrics[0]["groups/without_spread"] == 0.5


def test_a_reward_that_scores_only_some_members_of_a_group_stops_the_run(make_config, run_toy):
    config = make_config(rewards=[{"name": "target"}, {"name": "other"}])
    scores = itertools.cycle([0.2, 0.8, 0.2, 0.8, 0.2, 0.8, 0.9, None])  # of both rewards, member after member
    with pytest.raises(RolloutError, match="reward 'other' scores some images of the prompt .* gives None for others"):
        run_toy(config, reward=lambda tokens, prompt: next(scores))


def test_a_reward_that_does_not_apply_is_not_a_zero(make_config, run_toy):
    def reward(tokens, prompt):
        return float((tokens < 32).mean()) if prompt.id in ("TAXI", "BANK", "CAFE", "EXIT") else None

    _, _, metrics = run_toy(make_config(trainer={"max_steps": 3}), reward=reward)
    assert all(line["reward/mean"] is None or 0.3 < line["reward/mean"] < 0.7 for line in metrics)
