"""Guards: a step that has gone wrong never reaches the weights; a run that learns nothing stops; evidence is saved."""

import json

import pytest
import torch
from transformers import TrainerState

from blip3o_grpo.configs.guards import GuardsSection
from blip3o_grpo.run.folder import RunFolder
from blip3o_grpo.run.metrics import read_metrics
from blip3o_grpo.training.guard_rules import GuardError
from blip3o_grpo.training.guards import Guards
from blip3o_grpo.training.mismatch import MismatchError
from blip3o_grpo.training.trainer import ImageGRPOTrainer


def test_a_gradient_that_is_used_already_cannot_be_skipped(tmp_path):
    """As with DeepSpeed, whose engine has taken it in when the optimiser is about to run."""
    logged = {}
    guards = Guards(
        GuardsSection(), tmp_path, rank=3, can_skip=False, any_rank=lambda value: value, add_metrics=logged.update
    )
    guards.losses.append(torch.tensor(float("nan")))
    with pytest.raises(GuardError, match="step 8: the loss is nan; DeepSpeed has used the gradient already"):
        guards.on_pre_optimizer_step(None, TrainerState(global_step=7), None)
    assert logged == {"guards/skipped": 1.0}
    evidence = json.loads((tmp_path / "guard-step-8" / "rank-3" / "metrics.json").read_text())
    assert evidence["reason"] == "the loss is nan"


class Broken(ImageGRPOTrainer):
    """Its loss is NaN at the steps in `at`."""

    at = ()

    def compute_loss(self, *args, **kwargs):
        loss = super().compute_loss(*args, **kwargs)
        return loss * float("nan") if self.step in self.at else loss


@pytest.fixture
def break_loss(monkeypatch):
    """Makes the loss NaN at the given steps."""

    def at(*steps):
        Broken.at = steps
        monkeypatch.setattr("blip3o_grpo.rank.ImageGRPOTrainer", Broken)

    return at


def test_a_non_finite_step_leaves_weights_and_optimiser_as_they_were(make_config, run_toy, break_loss):
    break_loss(3)
    config = make_config(trainer={"max_steps": 4, "micro_batch_size": 4}, checkpoint={"every_steps": 1, "keep": 4})
    _, _, metrics = run_toy(config)
    assert [line["guards/skipped"] for line in metrics] == [0, 0, 1, 0]
    assert metrics[2]["grad_norm"] is None
    folder = RunFolder(config.run_dir)
    saved = [
        {
            "weights": (folder.checkpoints / f"checkpoint-{step}" / "model.safetensors").read_bytes(),
            "optimizer": torch.load(folder.checkpoints / f"checkpoint-{step}" / "optimizer.pt", weights_only=True),
        }
        for step in (2, 3, 4)
    ]
    assert saved[0]["weights"] == saved[1]["weights"] != saved[2]["weights"]
    for index, values in saved[0]["optimizer"]["state"].items():
        for name, value in values.items():
            assert torch.equal(value, saved[1]["optimizer"]["state"][index][name]), name
    evidence = folder.failures / "guard-step-3" / "rank-0"
    assert json.loads((evidence / "metrics.json").read_text())["reason"] == "the loss is nan"
    lines = [json.loads(line) for line in (evidence / "rollouts.jsonl").read_text().splitlines()]
    assert len(lines) == 8
    assert len(lines[0]["token_ids"]) == len(lines[0]["logprobs"]) and lines[0]["rewards"].keys() == {"target"}
    assert (evidence / lines[0]["image"]).is_file()


def test_a_non_finite_step_stops_the_run_where_asked_to(make_config, run_toy, break_loss):
    break_loss(2, 3, 4)
    with pytest.raises(GuardError, match=r"step 2: the loss is nan; guards\.non_finite=stop \(.*guard-step-2"):
        run_toy(make_config(guards={"non_finite": "stop"}))
    config = make_config(guards={"max_skips": 2}, checkpoint={"every_steps": 1})
    with pytest.raises(GuardError, match=r"step 4: .*2 steps before it were skipped already"):
        run_toy(config)
    assert RunFolder(config.run_dir).newest_step() == 3
    with pytest.raises(GuardError, match=r"step 4: .*2 steps before it"):  # a resumed run decides the same
        run_toy(config)


def test_a_mismatch_is_skipped_where_asked_to_and_leaves_evidence_either_way(make_config, run_toy):
    config = make_config(guards={"mismatch": "skip"}, trainer={"max_steps": 2})
    trainer, _, metrics = run_toy(config, shift=0.05)
    assert [line["guards/skipped"] for line in metrics] == [1, 1]
    assert metrics[0]["kl/mismatch"] > 0
    before = trainer.pipeline.ar.state_dict()
    trainer.sync_evaluated_weights()
    assert all(torch.equal(value, trainer.pipeline.ar.state_dict()[name]) for name, value in before.items())
    stopped = make_config()
    with pytest.raises(MismatchError):
        run_toy(stopped, shift=0.05)
    assert (RunFolder(stopped.run_dir).failures / "guard-step-1" / "rank-0" / "rollouts.jsonl").is_file()


def test_a_reward_that_never_differs_stops_the_run(make_config, run_toy):
    config = make_config(guards={"window_steps": 3}, checkpoint={"every_steps": 1})
    with pytest.raises(GuardError, match=r"step 3: all groups were without spread for 3 steps.*\(guards\.no_spread\)"):
        run_toy(config, reward=lambda tokens, prompt: 0.5)
    assert [line["step"] for line in read_metrics(RunFolder(config.run_dir).metrics)] == [1, 2, 3]
