"""Several optimiser steps on a batch: what belongs to a batch is done once, what belongs to a step each time."""

import time

import pytest
import torch

from blip3o_grpo.run.folder import RunFolder
from blip3o_grpo.training.draws import Drawing
from blip3o_grpo.training.guard_rules import GuardError
from blip3o_grpo.training.schedule import prompt_schedule
from blip3o_grpo.training.trainer import ImageGRPOTrainer

TWO = {"num_iterations": 2, "max_steps": 6, "micro_batch_size": 4, "learning_rate": 1e-3, "beta": 0.1}
OF_BATCHES = {"reward/mean", "reward/target", "mismatch/mean_abs", "time/sample", "groups/dropped"}
OF_STEPS = {
    "loss",
    "grad_norm",
    "learning_rate",
    "kl/reference",
    "entropy",
    "guards/skipped",
    "time/train",
    "time/step",
}


@pytest.fixture(scope="module")
def whole(make_config, run_toy):
    """Six steps on three batches, with everything that a step may have."""
    config = make_config(
        trainer=TWO | {"ema": {"decay": 0.5}},
        rollout={"record_every_steps": 4},
        evaluation={"every_steps": 2, "images_per_prompt": 2, "num_prompts": 4, "grid_prompts": 2},
    )
    return (*run_toy(config), config)


def same(ours, theirs, tolerance=1e-6):
    assert [line["step"] for line in ours] == [line["step"] for line in theirs]
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.keys() == other.keys()
        for name in mine:
            if not name.startswith("time/"):
                assert mine[name] == pytest.approx(other[name], abs=tolerance), (mine["step"], name)


def same_weights(ours, theirs, tolerance=1e-6):
    for name, tensor in theirs.model.state_dict().items():
        torch.testing.assert_close(ours.model.state_dict()[name], tensor, atol=tolerance, rtol=0, msg=name)


def test_every_step_has_a_line_and_every_batch_its_numbers_once(whole):
    _, pipeline, metrics, _ = whole
    assert [line["step"] for line in metrics] == [1, 2, 3, 4, 5, 6]
    for line in metrics:
        assert line.keys() >= OF_STEPS
        assert line.keys() >= OF_BATCHES if line["step"] % 2 else not OF_BATCHES & line.keys()
    assert all((line["time/rollout"] > 0) == bool(line["step"] % 2) for line in metrics)
    assert [line["step"] for line in metrics if "heldout/target" in line] == [2, 4]
    assert sorted(set(pipeline.versions)) == [0, 2, 4]


def test_rollouts_are_recorded_under_their_batchs_first_step(whole):
    folder = RunFolder(whole[3].run_dir)
    assert [path.name for path in sorted(folder.path.glob("rollouts/*"))] == ["step-000001", "step-000003"]
    assert folder.newest_step() == 6


def test_the_prompts_are_those_of_as_many_batches(make_config, run_toy, prompts):
    seen = []

    def draw(self, step, asked):
        seen.append([prompts.index(prompt) for prompt in asked])
        return original(self, step, asked)

    original = Drawing.draw
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Drawing, "draw", draw)
        run_toy(make_config(trainer=TWO))
    assert sum(seen, []) == prompt_schedule(8, 2, 3, seed=0)


def test_the_numbers_are_those_of_trls_own_way(make_config, run_toy):
    """Which computes the log-probs before the first update in a pass of its own."""
    ours, _, metrics = run_toy(make_config(trainer=TWO))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ImageGRPOTrainer, "one_forward", lambda _: False)
        theirs, _, their_metrics = run_toy(make_config(trainer=TWO))
    same_weights(ours, theirs, 5e-4)
    for mine, other in zip(metrics, their_metrics, strict=True):
        assert mine.keys() == other.keys()
        for name in ("loss", "grad_norm", "kl/reference", "entropy", "learning_rate"):
            assert mine[name] == pytest.approx(other[name], rel=2e-2, abs=1e-4), (mine["step"], name)


@pytest.mark.slow
def test_the_second_update_changes_what_is_learnt(make_config, run_toy):
    once, *_ = run_toy(make_config(trainer=TWO | {"num_iterations": 1, "max_steps": 3}))
    twice, *_ = run_toy(make_config(trainer=TWO))
    assert once.state.global_step == 3 and twice.state.global_step == 6
    with pytest.raises(AssertionError):
        same_weights(twice, once, 1e-4)


def test_a_killed_run_goes_on_at_the_end_of_a_batch_and_ends_alike(make_config, run_toy, whole):
    trainer, _, metrics, config = whole
    again = config.model_copy(update={"run_dir": str(make_config().run_dir)})
    with pytest.raises(KeyboardInterrupt):
        run_toy(again, stop_at=5)
    found, pipeline, resumed = run_toy(again)
    assert min(pipeline.versions) == 4
    same(resumed, metrics)
    same_weights(found, trainer)


def test_a_stop_in_the_middle_of_a_batch_is_one_at_its_end(make_config, run_toy, whole):
    trainer, _, metrics, config = whole
    again = config.model_copy(update={"run_dir": str(make_config().run_dir)})
    folder, original = RunFolder(again.run_dir), ImageGRPOTrainer.see_gradient_norm

    def see(self, norm):
        if self.step == 3:
            folder.stop.touch()
        original(self, norm)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ImageGRPOTrainer, "see_gradient_norm", see)
        _, _, stopped = run_toy(again)
    assert [line["step"] for line in stopped] == [1, 2, 3, 4] and folder.newest_step() == 4
    found, _, resumed = run_toy(again)
    same(resumed, metrics)
    same_weights(found, trainer)


def test_a_stop_while_a_batch_is_drawn_ends_after_the_one_before(make_config, run_toy):
    config = make_config(trainer=TWO, checkpoint={"every_steps": 6})
    started = time.monotonic()
    run_toy(config, hang_at=3)
    assert RunFolder(config.run_dir).newest_step() == 2 and time.monotonic() - started < 50


@pytest.mark.slow
def test_a_longer_run_is_what_it_would_have_been(make_config, run_toy):
    expected, _, metrics = run_toy(make_config(trainer=TWO))
    config = make_config(trainer=TWO | {"max_steps": 4})
    run_toy(config)
    longer = config.model_copy(update={"trainer": config.trainer.model_copy(update={"max_steps": 6})})
    RunFolder(config.run_dir).check(longer)
    found, _, more = run_toy(longer)
    same(more, metrics)
    same_weights(found, expected)


def test_a_mismatch_skips_all_updates_of_its_batch(make_config, run_toy):
    config = make_config(trainer=TWO | {"max_steps": 4}, guards={"mismatch": "skip", "max_skips": 4})
    trainer, _, metrics = run_toy(config, shift=0.05)
    assert [line["guards/skipped"] for line in metrics] == [1.0] * 4
    untouched, *_ = run_toy(make_config(trainer=TWO | {"max_steps": 2, "learning_rate": 1e-30}))
    same_weights(trainer, untouched, 0.0)
    strict = make_config(trainer=TWO | {"max_steps": 4}, guards={"mismatch": "skip", "max_skips": 3})
    with pytest.raises(GuardError, match="step 4: .*3 steps before it were skipped already"):
        run_toy(strict, shift=0.05)


@pytest.fixture(scope="module")
def gradients(make_config, run_toy):
    """Of both updates of a batch of so many prompts, and the metrics."""

    def after(num_prompts, options, drop=()):
        section = TWO | {"max_steps": 2, "micro_batch_size": 2, "max_grad_norm": 1e9} | options
        config = make_config(rollout={"prompts_per_step": num_prompts}, trainer=section)
        seen = []

        def see(trainer, norm):
            seen.append({name: value.grad.clone() for name, value in trainer.model.named_parameters()})

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ImageGRPOTrainer, "see_gradient_norm", see)
            return seen, run_toy(config, num_prompts, drop=drop)[2]

    return after


GSPO = {"importance_sampling_level": "sequence", "epsilon": 1e-3}
DROPPED = [
    *({"loss_type": loss, "epsilon": 0.01} for loss in ("grpo", "dr_grpo", "bnpo", "dapo")),
    {"loss_type": "cispo", "epsilon_high": 1.01},
    {"loss_type": "sapo"},
    {"loss_type": "vespo", "vespo_k_pos": 0.2, "vespo_lambda_pos": 0.3},
    {"loss_type": "luspo", **GSPO},
    *({"loss_type": loss, **GSPO} for loss in ("grpo", "dapo", "bnpo")),
    {"loss_type": "cispo", "epsilon_high": 1.01, "importance_sampling_level": "sequence"},
    {"delta": 1.3, "off_policy_mask_threshold": 1e-4},
    {"top_entropy_quantile": 0.25},
    *({"loss_type": loss, "entropy_coef": 0.1} for loss in ("dapo", "grpo", "bnpo")),
    {"entropy_coef": 0.1, "top_entropy_quantile": 0.25},
    {"entropy_coef": 0.1, "use_adaptive_entropy": True, "entropy_target": 100.0, "entropy_coef_delta": 0.05},
]


QUICK = (
    {"loss_type": "dapo", "epsilon": 0.01},
    DROPPED[4],
    {"loss_type": "luspo", **GSPO},
    {"entropy_coef": 0.1, "loss_type": "dapo"},
)
"""One of each kind; the others are slow."""


@pytest.mark.parametrize(
    "options", [pytest.param(o, marks=[] if o in QUICK else [pytest.mark.slow], id=str(o)) for o in DROPPED]
)
def test_a_dropped_group_leaves_the_others_gradient_as_it_is(gradients, options):
    """Gradients and metrics of both updates are those of the other group alone, with every loss."""
    (expected, alone), (found, metrics) = gradients(1, options), gradients(2, options, drop=("BANK",))
    assert metrics[0]["groups/dropped"] == 1
    for mine, other in zip(found, expected, strict=True):
        for name, gradient in other.items():
            assert (mine[name] - gradient).norm() < 2e-3 * gradient.norm() + 1e-7, name
    for mine, other in zip(metrics, alone, strict=True):
        shared = {name for name in other if name.startswith(("clip_ratio/", "cispo", "vespo/", "entropy"))}
        for name in {"grad_norm", "loss", "kl/reference", *shared}:
            assert mine[name] == pytest.approx(other[name], rel=2e-3, abs=1e-5), (mine["step"], name)
