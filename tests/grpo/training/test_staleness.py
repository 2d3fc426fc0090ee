"""`rollout.max_staleness: 1`: the next step's rollouts are drawn while this one trains, and nothing is lost by it."""

import numpy as np
import pytest
import torch

from blip3o_grpo.configs import ConfigError
from blip3o_grpo.rollout import RolloutError, read_rollouts
from blip3o_grpo.rollout.batch_file import load_batch, save_batch
from blip3o_grpo.run.folder import RunFolder
from blip3o_grpo.run.metrics import read_metrics
from blip3o_grpo.training.trainer import ImageGRPOTrainer

STALE = {"max_staleness": 1, "record_every_steps": 1}


def config_of(make_config, steps=5, rollout=STALE, **sections):
    trainer = {"max_steps": steps, "beta": 0.1, "micro_batch_size": 4} | sections.pop("trainer", {})
    return make_config(rollout=rollout, trainer=trainer, **{"checkpoint": {"every_steps": 2}, **sections})


@pytest.fixture(scope="module")
def whole(make_config, run_toy):
    """A run that was never interrupted: trainer, pipeline, metrics, configuration."""
    config = config_of(make_config)
    return (*run_toy(config), config)


def untimed(line):
    return {name: value for name, value in line.items() if not name.startswith("time/") and "heldout/" not in name}


def assert_same_end(config, metrics, trainer, whole):
    expected, _, their_metrics, their_config = whole
    for name, tensor in expected.model.state_dict().items():
        torch.testing.assert_close(trainer.model.state_dict()[name], tensor, atol=1e-6, rtol=0, msg=name)
    for line, theirs in zip(metrics, their_metrics, strict=True):
        assert untimed(line).keys() == untimed(theirs).keys()
        assert untimed(line) == pytest.approx(untimed(theirs), abs=1e-5)
    ours, others = (
        [(record["step"], record["policy_version"], record["rollouts"]) for record in read_rollouts(run)]
        for run in (config.run_dir, their_config.run_dir)
    )
    assert ours == others


def test_rollouts_are_one_version_behind_and_the_loss_corrects(whole):
    """All but the first step's, which has nothing before it."""
    _, pipeline, metrics, config = whole
    assert pipeline.versions == [0, 1, 2, 3, 4]
    versions = {(record["step"], record["policy_version"]) for record in read_rollouts(config.run_dir)}
    assert versions == {(1, 0), (2, 0), (3, 1), (4, 2), (5, 3)}
    assert [line["mismatch/staleness"] for line in metrics] == [0, 1, 1, 1, 1]
    assert metrics[0]["mismatch/mean_abs"] < 1e-5 < 1e-3 < metrics[1]["mismatch/mean_abs"]
    assert metrics[0]["mismatch/effective_sample_size"] > 1 - 1e-6
    assert all(line["mismatch/effective_sample_size"] < 1 - 1e-5 for line in metrics[1:])
    assert all(line["mismatch/weight_max"] <= 2 for line in metrics)


def test_the_weights_of_a_stale_step_are_the_ratios_of_new_and_old_policy(make_config, run_toy):
    """By hand: the log-probs of the second step's tokens under the weights before and after the first update."""
    seen, computed = [], ImageGRPOTrainer._compute_loss

    def compute(self, model, inputs):
        loss = computed(self, model, inputs)
        seen.append({name: inputs[name] for name in ("importance_sampling_ratio", "sampling_per_token_logps")})
        ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], 1)
        mask = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], 1)
        with torch.no_grad():
            seen[-1]["now"] = self.logprobs(self.model, ids, mask, None, False)[0]
        return loss

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ImageGRPOTrainer, "_compute_loss", compute)
        run_toy(config_of(make_config, steps=2, trainer={"micro_batch_size": 8}))
    first, second = seen
    torch.testing.assert_close(first["importance_sampling_ratio"], torch.ones_like(first["now"]), atol=1e-5, rtol=0)
    ratios = (second["now"] - second["sampling_per_token_logps"]).exp().clamp(max=2)
    torch.testing.assert_close(second["importance_sampling_ratio"], ratios, atol=1e-5, rtol=0)
    assert (ratios - 1).abs().max() > 1e-3


def test_no_staleness_is_the_default_and_draws_with_the_newest_weights(make_config, run_toy):
    config = config_of(make_config, steps=3, rollout={"record_every_steps": 1})
    trainer, _, metrics = run_toy(config)
    assert {(r["step"], r["policy_version"]) for r in read_rollouts(config.run_dir)} == {(1, 0), (2, 1), (3, 2)}
    assert "mismatch/staleness" not in metrics[0] and not trainer.ahead.wait()


def test_a_run_that_was_killed_resumes_with_what_was_drawn_ahead_of_its_checkpoint(make_config, run_toy, whole):
    config = config_of(make_config)
    with pytest.raises(KeyboardInterrupt):  # drawing for step 5 fails: 4 steps are done, and checkpoint 4 is written
        run_toy(config, stop_at=5)
    folder = RunFolder(config.run_dir)
    assert not (folder.newest_checkpoint() / "ahead-0.safetensors").exists()  # it could not be drawn
    assert len(read_metrics(folder.metrics)) == 4
    (folder.checkpoints / "checkpoint-4").rename(folder.path / "later")
    trainer, pipeline, metrics = run_toy(config)
    assert pipeline.versions == [2, 3, 4]
    assert_same_end(config, metrics, trainer, whole)


def test_a_stop_while_rollouts_are_drawn_ahead_changes_nothing(make_config, run_toy, whole):
    config = config_of(make_config)
    folder, asked, original = RunFolder(config.run_dir), [], ImageGRPOTrainer.see_gradient_norm

    def stop(self, norm):
        if self.step == 3 and not asked:
            asked.append(folder.stop.touch())
        original(self, norm)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ImageGRPOTrainer, "see_gradient_norm", stop)
        run_toy(config)
    assert folder.newest_step() == 3 and (folder.newest_checkpoint() / "ahead-0.safetensors").is_file()
    folder.stop.unlink()
    trainer, _, metrics = run_toy(config)
    assert_same_end(config, metrics, trainer, whole)


def test_evaluations_in_between_change_nothing(make_config, run_toy, whole):
    evaluation = {"every_steps": 1, "images_per_prompt": 2, "num_prompts": 2, "grid_prompts": 1}
    config = config_of(make_config, evaluation=evaluation)
    trainer, _, metrics = run_toy(config)
    assert_same_end(config, metrics, trainer, whole)


def test_rollouts_that_fail_ahead_fail_in_their_own_step(make_config, run_toy):
    def reward(tokens, prompt):
        if failing and prompt.id:
            raise RolloutError("the reward service is gone")
        return float((tokens < 32).mean())

    failing, original = [], ImageGRPOTrainer.see_gradient_norm

    def fail_from_the_second_step(self, norm):
        failing.append(self.step)
        original(self, norm)

    config = config_of(make_config, checkpoint={"every_steps": 1})
    with pytest.MonkeyPatch.context() as patch, pytest.raises(RolloutError, match="the reward service is gone"):
        patch.setattr(ImageGRPOTrainer, "see_gradient_norm", fail_from_the_second_step)
        run_toy(config, reward=reward)
    folder = RunFolder(config.run_dir)
    assert folder.newest_step() == len(read_metrics(folder.metrics)) >= 1


def test_a_loss_that_corrects_by_whole_images_is_refused(make_config):
    with pytest.raises(ValueError, match="rollout.max_staleness=1 needs a loss that corrects token by token.*sequence"):
        config_of(make_config, trainer={"vllm_importance_sampling_mode": "sequence_truncate"})
    with pytest.raises(ValueError, match="num_iterations=2 rollouts would be 2 updates behind; give one of the two"):
        config_of(make_config, steps=4, trainer={"num_iterations": 2})
    with pytest.raises(ValueError):
        config_of(make_config, rollout={"max_staleness": 2})


def test_samplers_that_sleep_while_the_trainer_trains_are_refused(make_config):
    from blip3o_grpo.rollout.weights.path import weight_path

    shares = {"gpus_per_trainer": 0.4, "gpus_per_sampler": 0.3, "gpus_per_decoder": 0.3, "weight_sync": "ipc"}
    assert weight_path(config_of(make_config, rollout={}, cluster=shares)) == "ipc"
    with pytest.raises(ConfigError, match=r"weight_sync=ipc.*rollout\.max_staleness=1 has them draw then"):
        weight_path(config_of(make_config, cluster=shares))
    assert weight_path(config_of(make_config, cluster=shares | {"weight_sync": "auto"})) == "object_store"


def test_a_batch_is_read_as_it_was_written(tmp_path, make_config, fake_pipeline, prompts):
    config = make_config(rewards=[{"name": "target"}, {"name": "other"}])
    pipeline = fake_pipeline(config, reward=lambda tokens, prompt: None if prompt.id == "BANK" else 0.25)
    pipeline.version = 7
    batch = pipeline.collect(prompts[:3], step=4)
    save_batch(tmp_path / "b.safetensors", batch, 4)
    step, found = load_batch(tmp_path / "b.safetensors")
    assert step == 4 and (found.seconds, found.skipped_groups, found.faults) == (batch.seconds, 0, {})
    for ours, theirs in zip(found.groups, batch.groups, strict=True):
        assert (ours.prompt, ours.prompt_ids) == (theirs.prompt, theirs.prompt_ids)
        for mine, other in zip(ours.rollouts, theirs.rollouts, strict=True):
            assert mine.rewards == other.rewards and mine.completion.seed == other.completion.seed
            assert mine.completion.policy_version == 7
            for name in ("token_ids", "logprobs"):
                found_array, array = getattr(mine.completion, name), getattr(other.completion, name)
                assert found_array.dtype == array.dtype and np.array_equal(found_array, array)
            assert np.array_equal(mine.image, other.image)


def test_a_longer_run_would_have_drawn_ahead(make_config, run_toy):
    from blip3o_grpo.run.length import other_length

    known, asked = (config_of(make_config, steps=steps) for steps in (3, 5))
    assert "would have drawn the next one's" in other_length(known, asked, 3)
    assert other_length(known, asked, 2) is None
