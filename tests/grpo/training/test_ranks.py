"""Two trainer ranks (gloo) do what one does with the whole batch: DDP, FSDP2, DeepSpeed, LoRA, EMA, recorded groups."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from blip3o_grpo.policies import BLIP3oNext
from blip3o_grpo.rollout import read_rollouts
from blip3o_grpo.run.folder import RunFolder
from blip3o_grpo.run.metrics import read_metrics
from blip3o_grpo.training.checkpoint_weights import load_trained
from blip3o_grpo.training.schedule import prompt_schedule

ROOT = Path(__file__).parents[3]
COMPARED = {"reward/mean", "reward/target", "kl/reference", "entropy", "grad_norm", "loss", "image/contrast"}
LOSSES = [
    *({"loss_type": loss} for loss in ("grpo", "dr_grpo", "bnpo", "dapo", "sapo", "vespo")),
    {"loss_type": "cispo", "epsilon_high": 5.0},
    {"loss_type": "luspo", "importance_sampling_level": "sequence"},
    {"loss_type": "grpo", "entropy_coef": 0.1},
    {"loss_type": "dapo", "entropy_coef": 0.1},
]


def run_ranks(config, ranks=2, drop=()):
    """Start the ranks of a run and wait for them; groups of the prompts in `drop` are dropped."""
    folder = RunFolder(config.run_dir)
    folder.prepare(config)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {
        "WORLD_SIZE": str(ranks),
        "LOCAL_WORLD_SIZE": str(ranks),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, str(Path(__file__).parents[1].joinpath("rank.py")), str(folder.config), *drop]
    processes = [
        subprocess.Popen(
            command, env=os.environ | common | {"RANK": str(r), "LOCAL_RANK": str(r)}, stderr=subprocess.PIPE, text=True
        )
        for r in range(ranks)
    ]
    try:
        errors = [process.communicate(timeout=1500)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0] * ranks, "\n".join(errors)[-4000:]
    return folder


def run_in_two_parts(config):
    """Two steps, and the rest in new processes from the checkpoint."""
    shorter = config.model_copy(update={"trainer": config.trainer.model_copy(update={"max_steps": 2})})
    assert run_ranks(shorter).newest_step() == 2
    return run_ranks(config)


def assert_same_run(folder, metrics, trainer):
    """All steps' metrics within 1e-4 of the single rank's, and its weights; a resume without Adam's moments fails."""
    ours = read_metrics(folder.metrics)
    assert [line["step"] for line in ours] == [line["step"] for line in metrics]
    for line, expected in zip(ours, metrics, strict=True):
        for name in COMPARED & expected.keys():  # a further step on the same images has no rewards
            assert line[name] == pytest.approx(expected[name], abs=1e-4), (line["step"], name)
    trainer.sync_evaluated_weights()
    for name, tensor in torch.load(folder.path / "state.pt", weights_only=True).items():
        torch.testing.assert_close(tensor, trainer.pipeline.ar.state_dict()[name], atol=1e-4, rtol=0, msg=name)


@pytest.fixture(scope="module")
def make_pair(make_config):
    """The same run for one rank and for two."""

    def make(parallel=None, **trainer):
        sections = {
            "rollout": {"prompts_per_step": 4, "group_size": 4, "record_every_steps": 1},
            "trainer": {"max_steps": 3, "learning_rate": 1e-4, "beta": 0.1, "micro_batch_size": 4, **trainer},
            "checkpoint": {"every_steps": 2},
        }
        sharded = {"trainer": sections["trainer"] | {"parallel": parallel or {"type": "ddp"}}}
        return make_config(**sections), make_config(**sections | sharded, cluster={"trainers": 2})

    return make


@pytest.mark.slow
def test_two_ranks_train_like_one_and_record_the_groups_of_both(make_pair, run_toy):
    alone, together = make_pair()
    trainer, _, metrics = run_toy(alone)
    folder = run_ranks(together)
    assert_same_run(folder, metrics, trainer)
    ours, theirs = read_rollouts(folder.path), read_rollouts(alone.run_dir)
    assert [(r["step"], r["prompt_id"]) for r in ours] == [(r["step"], r["prompt_id"]) for r in theirs]
    assert len(ours) == 3 * 4
    for mine, other in zip(ours, theirs, strict=True):
        assert [r["seed"] for r in mine["rollouts"]] == [r["seed"] for r in other["rollouts"]]
        assert mine["rollouts"][0]["rewards"] == pytest.approx(other["rollouts"][0]["rewards"])
        for kind in ("best", "worst"):
            assert Path(mine[kind]["image"]).read_bytes() == Path(other[kind]["image"]).read_bytes()


@pytest.mark.slow
def test_two_ranks_choose_the_prompts_and_members_that_one_does(make_config, run_toy):
    """A curriculum learns from all ranks' groups, and each rank takes its subset of its own."""
    rollout = {"prompts_per_step": 4, "group_size": 6, "subset_size": 4, "curriculum": {}, "record_every_steps": 1}
    section = {"max_steps": 3, "adam_epsilon": 1e-4}
    alone, together = (
        make_config(rollout=rollout, trainer=section, cluster={"trainers": trainers}) for trainers in (1, 2)
    )
    trainer, _, metrics = run_toy(alone)
    folder = run_ranks(together)
    assert_same_run(folder, metrics, trainer)
    drawn = [{(r["step"], r["prompt_id"]) for r in read_rollouts(run)} for run in (alone.run_dir, folder.path)]
    assert drawn[0] == drawn[1] and len(drawn[0]) == 12


@pytest.mark.slow
def test_ranks_replace_and_replay_groups_of_their_own(make_config):
    rollout = {
        "prompts_per_step": 4,
        "dynamic_sampling": {"outcome": "target", "right": 0.5},
        "replay": {"groups_per_step": 2, "max_age": 2},
        "record_every_steps": 1,
    }
    folder = run_ranks(make_config(rollout=rollout, trainer={"max_steps": 3}, cluster={"trainers": 2}))
    lines, painted = read_metrics(folder.metrics), 0
    for line in lines:
        painted += 4 * (4 - line["groups/replayed"] + line["groups/replaced"] + line["groups/in_vain"])
        assert line["images/total"] == painted
        ids = [record["prompt_id"] for record in read_rollouts(folder.path) if record["step"] == line["step"]]
        assert len(ids) == len(set(ids)) == 4 - line["groups/replayed"]  # no rank draws another's prompt
    assert lines[0]["groups/replayed"] == 0 < lines[-1]["groups/replayed"] <= 2
    assert all((folder.newest_checkpoint() / f"replay-{rank}.safetensors").is_file() for rank in (0, 1))


@pytest.mark.slow
@pytest.mark.parametrize("options", LOSSES, ids=str)
def test_groups_dropped_on_one_rank_leave_the_others_gradient_as_it_is(make_config, run_toy, prompts, options):
    """Of two ranks, one has nothing left, or one group: gradient and metrics are those of the groups that are left.

    The reference is one rank that never had the dropped prompts, so its mean is over the others only.
    """
    section = {"learning_rate": 1e-4, "beta": 0.1, "max_steps": 1, "max_grad_norm": 1e9, **options}
    section["adam_epsilon"] = 1e-4  # with Adam's own, rounding decides about the sign of steps where gradients are 0
    places = prompt_schedule(len(prompts), 4, 1, seed=0)
    for left in (places[:2], places[:3]):  # of rank 0 alone; also one of rank 1
        rollout = {"prompts_per_step": len(left), "group_size": 4, "record_every_steps": 0}
        alone = make_config(rollout=rollout, trainer=section)
        together = make_config(
            rollout=rollout | {"prompts_per_step": 4},
            trainer=section | {"micro_batch_size": 2},
            cluster={"trainers": 2},
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("blip3o_grpo.training.draws.prompt_schedule", lambda *_, left=left: left)
            trainer, _, metrics = run_toy(alone)
        folder = run_ranks(together, drop=[prompts[place].id for place in places[len(left) :]])
        assert_same_run(folder, metrics, trainer)
        (ours,) = read_metrics(folder.metrics)
        assert ours["grad_norm"] == pytest.approx(metrics[0]["grad_norm"], rel=1e-3)
        assert ours["groups/dropped"] == 4 - len(left)
        for name in ("groups/without_spread", "mismatch/weight_min", "mismatch/effective_sample_size"):
            assert ours[name] == pytest.approx(metrics[0][name], rel=1e-4), name


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"gradient_checkpointing": True, "ema": {"decay": 0.5}},
        {"lora": {"rank": 4}, "ema": {"decay": 0.5}, "learning_rate": 1e-3, "gradient_checkpointing": True},
    ],
    ids=["plain", "checkpointing and ema", "lora and ema"],
)
def test_fsdp2_shards_the_policy_and_trains_like_one_rank(make_pair, run_toy, policy_path, options):
    alone, together = make_pair(**options, parallel={"type": "fsdp2"})
    trainer, _, metrics = run_toy(alone)
    folder = run_ranks(together)
    assert_same_run(folder, metrics, trainer)
    held = [int((folder.path / f"values-{rank}").read_text()) for rank in (0, 1)]
    whole = sum(parameter.numel() for parameter in trainer.model.parameters())
    assert max(held) < 0.6 * whole  # every rank holds about half
    saved = load_trained(
        BLIP3oNext.from_pretrained(policy_path, parts=("ar",)).ar, folder.newest_checkpoint(), together
    )
    for name, tensor in torch.load(folder.path / "state.pt", weights_only=True).items():
        torch.testing.assert_close(saved.state_dict()[name], tensor, atol=1e-5, rtol=0, msg=name)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"ema": {"decay": 0.5}},
        {"sync_ref_model": True, "ref_model_sync_steps": 1, "ref_model_mixup_alpha": 0.5},
        {"num_iterations": 2, "max_steps": 4, "entropy_coef": 0.1},
    ],
    ids=["ema", "a reference that moves", "two updates"],
)
def test_an_fsdp2_run_resumes(make_pair, run_toy, options):
    alone, together = make_pair(parallel={"type": "fsdp2"}, **options)
    trainer, _, metrics = run_toy(alone)
    folder = run_in_two_parts(together)
    assert_same_run(folder, metrics, trainer)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "options"),
    [(1, {}), (2, {"gradient_checkpointing": True}), (3, {}), (2, {"lora": {"rank": 4}, "learning_rate": 1e-3})],
    ids=["stage 1", "stage 2 and checkpointing", "stage 3", "stage 2 and lora"],
)
def test_deepspeed_trains_like_one_rank_and_resumes(make_pair, run_toy, policy_path, stage, options):
    pytest.importorskip("deepspeed")
    alone, together = make_pair(**options, parallel={"type": "deepspeed", "zero_stage": stage})
    trainer, _, metrics = run_toy(alone)
    folder = run_in_two_parts(together)
    assert_same_run(folder, metrics, trainer)
    assert {(folder.path / f"engine-{rank}").read_text() for rank in (0, 1)} == {f"DeepSpeedEngine {stage}"}
    held = [int((folder.path / f"values-{rank}").read_text()) for rank in (0, 1)]
    whole = sum(parameter.numel() for parameter in trainer.model.parameters())
    assert max(held) < 0.6 * whole if stage == 3 else held == [whole, whole]
    saved = load_trained(
        BLIP3oNext.from_pretrained(policy_path, parts=("ar",)).ar, folder.newest_checkpoint(), together
    )
    for name, tensor in torch.load(folder.path / "state.pt", weights_only=True).items():
        torch.testing.assert_close(saved.state_dict()[name], tensor, atol=1e-5, rtol=0, msg=name)
