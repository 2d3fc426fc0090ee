"""Every private name of TRL that we use still means what we take it for: seen in one short run, or in its signature."""

import inspect
import logging
import os
import subprocess
import sys
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import TrainerCallback

from blip3o_grpo.run.folder import RunFolder
from blip3o_grpo.training.trainer import ImageGRPOTrainer
from blip3o_grpo.training.trl_seams import LENGTHS, SeamedGRPOTrainer, prepare_deepspeed

GRPOTrainer = SeamedGRPOTrainer.__base__
"""TRL's own, imported where it must be: after what the seams set."""
STEPS = 2


class Noted(ImageGRPOTrainer):
    """Notes in which order TRL and transformers call what is behind the seams."""

    events: list = []

    def sync_weights(self):
        self.events.append("sync_weights")
        super().sync_weights()

    def rollouts(self):
        self.events.append("rollouts")
        return super().rollouts()

    def logprobs(self, model, ids, mask, batch_size, entropy):
        asked = "reference" if model is self.ref_model else "policy"
        self.events.append(f"logprobs of the {asked}{' with entropy' if entropy else ''}")
        return super().logprobs(model, ids, mask, batch_size, entropy)

    def see_rewards(self, rewards, advantages):
        self.events.append("see_rewards")
        self.seen = (rewards, advantages)
        return super().see_rewards(rewards, advantages) / 2

    def check_rollouts(self, rollout_logprobs, old_logprobs, mask, weights, replayed):
        self.events.append("check_rollouts")
        self.compared = (rollout_logprobs, old_logprobs, mask, weights)
        super().check_rollouts(rollout_logprobs, old_logprobs, mask, weights, replayed)

    def _compute_loss(self, model, inputs):
        self.learnt_from = inputs
        return super()._compute_loss(model, inputs)

    def see_gradient_norm(self, norm):
        self.events.append("see_gradient_norm")
        self.norm = float(norm)
        super().see_gradient_norm(norm)

    def write_checkpoint(self, write):
        self.events.append("write_checkpoint")
        super().write_checkpoint(write)


class BeforeOptimizer(TrainerCallback):
    def on_pre_optimizer_step(self, *_, **__):
        Noted.events.append("optimizer")


@pytest.fixture(scope="module")
def noted(make_config, run_toy):
    """Trainer, events, metrics and warnings of a run of two steps with a checkpoint at its end."""
    config = make_config(trainer={"max_steps": STEPS, "beta": 0.1}, checkpoint={"every_steps": STEPS})
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")

        def build(*args, callbacks=(), **options):
            return Noted(*args, callbacks=[*callbacks, BeforeOptimizer()], **options)

        patch.setattr("blip3o_grpo.rank.ImageGRPOTrainer", build)
        trainer, _, metrics = run_toy(config)
    return SimpleNamespace(trainer=trainer, events=list(Noted.events), metrics=metrics, warned=warned, config=config)


def test_a_trainer_does_not_import_vllm():
    code = "import sys, blip3o_grpo.rank; sys.exit('vllm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def test_trl_is_silent_about_rollout_func(noted):
    assert not [warning for warning in noted.warned if "rollout_func" in str(warning.message)]
    assert os.environ["TRL_EXPERIMENTAL_SILENCE"] == "1"
    assert "TRL_EXPERIMENTAL_SILENCE" in inspect.getsource(GRPOTrainer.__init__)  # else nothing is left to silence


def test_trl_syncs_weights_before_each_rollout(noted):
    step = [
        "sync_weights",
        "rollouts",
        "logprobs of the reference",
        "see_rewards",
        "logprobs of the policy with entropy",
        "check_rollouts",
        "see_gradient_norm",
        "optimizer",
    ]
    assert noted.events == [*step * STEPS, "write_checkpoint"]
    trainer = noted.trainer
    trainer._last_loaded_step = trainer.state.global_step
    trainer.sync_again()
    assert trainer._last_loaded_step != trainer.state.global_step
    body = inspect.getsource(GRPOTrainer._generate)
    assert "self.state.global_step != self._last_loaded_step" in body and "vllm_generation.sync_weights()" in body


def test_a_reference_can_be_set_after_init(noted):
    assert noted.trainer.ref_model is not None and noted.trainer.beta == 0.1
    assert noted.metrics[0]["kl/reference"] == pytest.approx(0, abs=1e-6)
    assert noted.metrics[-1]["kl/reference"] > 0


def test_log_probs_are_asked_for_by_these_names():
    names = list(inspect.signature(GRPOTrainer._get_per_token_logps_and_entropies).parameters)
    wanted = ["self", "model", "input_ids", "attention_mask", "logits_to_keep", "batch_size", "compute_entropy"]
    assert names[: len(wanted)] == wanted


def test_the_losses_inputs_hold_both_log_probs(noted):
    rollout_logprobs, old_logprobs, mask, weights = noted.trainer.compared
    wanted = (8, noted.trainer.action_space.num_tokens)
    assert rollout_logprobs.shape == old_logprobs.shape == mask.shape == weights.shape == wanted
    assert mask.all()
    torch.testing.assert_close(rollout_logprobs, old_logprobs, atol=1e-4, rtol=0)
    assert rollout_logprobs is not old_logprobs and (rollout_logprobs < 0).all()


MODES = [
    {"vllm_importance_sampling_mode": f"{level}_{kind}", "vllm_importance_sampling_clip_max": high}
    for level, kind, high in (("token", "truncate", 1.05), ("token", "mask", 1.05))
] + [
    {"vllm_importance_sampling_mode": f"sequence_{kind}", "vllm_importance_sampling_clip_max": 1.5, **low}
    for kind, low in (("truncate", {}), ("mask", {"vllm_importance_sampling_clip_min": 0.7}))
]


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode["vllm_importance_sampling_mode"])
def test_one_forward_gives_the_numbers_of_two(make_config, run_toy, mode):
    """Of a sampler that disagrees a little: weights, loss, metrics and the policy after two steps are TRL's own."""
    noise = np.random.default_rng(0).normal(0, 0.1, (4, 49))
    section = {"max_steps": 2, "beta": 0.1, "mismatch_bound": 1.0, "micro_batch_size": 4, "learning_rate": 1e-4, **mode}

    def run(one_forward):
        weights, computed = [], ImageGRPOTrainer._compute_loss

        def compute(self, model, inputs):
            loss = computed(self, model, inputs)
            weights.append(inputs["importance_sampling_ratio"])
            assert ("old_per_token_logps" in inputs) is not one_forward
            return loss

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ImageGRPOTrainer, "one_forward", lambda _: one_forward)
            patch.setattr(ImageGRPOTrainer, "_compute_loss", compute)
            trainer, _, metrics = run_toy(make_config(trainer=section), shift=noise)
        return torch.cat(weights), trainer.model.state_dict(), metrics

    (weights, policy, metrics), (their_weights, their_policy, their_metrics) = run(True), run(False)
    # TRL shuffles its own rows between the micro-batches of a step
    torch.testing.assert_close(weights.flatten().sort()[0], their_weights.flatten().sort()[0], atol=1e-5, rtol=0)
    assert weights.unique().numel() > 4
    for name, tensor in their_policy.items():
        torch.testing.assert_close(policy[name], tensor, atol=2e-5, rtol=0, msg=name)
    for line, theirs in zip(metrics, their_metrics, strict=True):
        assert line.keys() == theirs.keys()
        for name in ("loss", "grad_norm", "kl/reference", "mismatch/mean_abs", "mismatch/max_abs", "reward/mean"):
            assert line[name] == pytest.approx(theirs[name], rel=1e-3, abs=1e-6), name


def test_the_first_update_of_a_batch_tells_its_log_probs_unless_it_is_of_a_part(noted):
    trainer = noted.trainer
    assert trainer.one_forward()
    trainer.num_iterations = 2
    assert trainer.one_forward()
    trainer.num_iterations = 1
    parts, trainer.args.steps_per_generation = trainer.args.steps_per_generation, 2
    assert not trainer.one_forward()
    trainer.args.steps_per_generation = parts


def test_several_updates_draw_sync_and_compare_once_a_batch(make_config, run_toy):
    """TRL keeps a batch's inputs, and with them what the first update filled in."""
    before = len(Noted.events)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("blip3o_grpo.rank.ImageGRPOTrainer", Noted)
        run_toy(make_config(trainer={"max_steps": 4, "num_iterations": 2, "beta": 0.1}, checkpoint={"every_steps": 4}))
    update = ["logprobs of the policy with entropy", "see_gradient_norm"]
    batch = ["sync_weights", "rollouts", "logprobs of the reference", "see_rewards"]
    batch += [update[0], "check_rollouts", update[1], *update]
    found = Noted.events[before:]
    del Noted.events[before:]
    assert found == [*batch * 2, "write_checkpoint"]
    body = inspect.getsource(GRPOTrainer._prepare_inputs)
    assert "self._buffered_inputs[self._step % self.args.steps_per_generation]" in body


def test_trl_does_not_warn_of_lengths(make_config, run_toy, caplog):
    assert LENGTHS in inspect.getsource(GRPOTrainer.__init__).replace('"\n                "', "")
    with caplog.at_level(logging.WARNING, logger="trl.trainer.grpo_trainer"):
        run_toy(make_config(trainer={"max_steps": 1, "importance_sampling_level": "sequence"}))
    assert not [record for record in caplog.records if record.name.startswith("trl")]


def test_micro_batches_hold_whole_groups(make_config, run_toy):
    """So that a prompt is read once for its siblings."""
    seen, computed = [], ImageGRPOTrainer._compute_loss

    def compute(self, model, inputs):
        seen.append(inputs["prompt_ids"])
        return computed(self, model, inputs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ImageGRPOTrainer, "_compute_loss", compute)
        run_toy(make_config(trainer={"max_steps": 3, "micro_batch_size": 4}))
    assert len(seen) == 6
    for prompts in seen:
        assert len(prompts.unique(dim=0)) == 1


def test_the_rewards_of_all_ranks_are_kept(noted):
    """And they are what TRL's advantages are made of."""
    rewards, advantages = noted.trainer.seen
    assert rewards.shape == (8, 1) and advantages.shape == (8,)
    groups = rewards.view(2, 4)
    expected = (groups - groups.mean(1, keepdim=True)) / (groups.std(1, keepdim=True) + 1e-4)
    torch.testing.assert_close(advantages, expected.view(-1), atol=1e-5, rtol=0)


def test_advantages_are_replaced_in_the_batch(noted):
    _, advantages = noted.trainer.seen
    learnt, theirs = noted.trainer.learnt_from["advantages"].sort()[0], (advantages / 2).sort()[0]  # TRL shuffles
    torch.testing.assert_close(learnt, theirs, atol=1e-6, rtol=0)


def test_metrics_are_kept_by_mode_and_name(noted):
    trainer = noted.trainer
    assert not trainer.has_metrics()  # all was logged
    trainer.add_metrics({"kept": 1.0, "dropped": 2.0})
    trainer.add_metrics({"kept": 3.0})
    trainer.rename_metrics({"kept": "renamed", "dropped": None}.get)
    assert trainer._metrics["train"] == {"renamed": [1.0, 3.0]}
    trainer._metrics["train"].clear()
    assert {"guards/skipped", "mismatch/mean_abs", "time/step", "reward/mean"} <= noted.metrics[0].keys()


def test_the_gradient_norm_is_seen_before_the_optimiser_runs(noted):
    assert noted.events.index("see_gradient_norm") < noted.events.index("optimizer")
    assert noted.trainer.norm == pytest.approx(noted.metrics[-1]["grad_norm"])


def test_a_checkpoint_is_written_through_the_seam(noted):
    assert noted.events.count("write_checkpoint") == 1
    assert RunFolder(noted.config.run_dir).newest_step() == STEPS
    noted.trainer.save_checkpoint()
    assert Noted.events.count("write_checkpoint") == 2


def test_trl_prepares_a_reference_for_deepspeed():
    assert list(inspect.signature(prepare_deepspeed).parameters) == ["model", "accelerator"]


def test_a_batch_is_drawn_where_tokens_do_not_learn(make_config, run_toy):
    """`_prepare_inputs` alone draws, scores and shows a step's batch, and syncs weights before it."""
    before = len(Noted.events)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("blip3o_grpo.rank.ImageGRPOTrainer", Noted)
        sections = {"rollout": {"noises_per_completion": 2}, "trainer": {"max_steps": 2, "beta": 0.1}}
        run_toy(make_config(learn=["head"], **sections))
    found = Noted.events[before:]
    del Noted.events[before:]
    assert found == [*["sync_weights", "rollouts", "see_rewards", "see_gradient_norm"] * 2, "write_checkpoint"]
