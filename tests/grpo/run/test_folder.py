"""A checkpoint counts once its manifest says so; a torn or changed one is never chosen; the right ones stay."""

import shutil

import pytest

from blip3o_grpo.configs import ConfigError
from blip3o_grpo.run.folder import CheckpointRefusedError, RunFolder, finish_checkpoint
from blip3o_grpo.run.manifest import FILE, accept, fault, read_manifest, write_manifest


@pytest.fixture
def folder(make_config):
    """A run folder with complete checkpoints of steps 2, 4 and 6."""
    config = make_config()
    run = RunFolder(config.run_dir)
    run.prepare(config)
    for step in (2, 4, 6):
        stage(run, step)
        finish_checkpoint(run.staging, step, keep=3)
    return run


def stage(run, step, text="weights"):
    staged = run.staging / f"checkpoint-{step}"
    (staged / "optimizer").mkdir(parents=True)
    (staged / "model.safetensors").write_text(f"{text} of step {step}")
    (staged / "optimizer" / "state.pt").write_bytes(bytes(1000))


def damage(run, how):
    newest = run.checkpoints / "checkpoint-6"
    file = newest / "model.safetensors"
    if how == "cut":
        file.write_text("weights")
    elif how == "changed":
        file.write_text("Weights of step 6")
    elif how == "missing":
        (newest / "optimizer" / "state.pt").unlink()
    elif how == "no manifest":
        (newest / FILE).unlink()
    elif how == "torn manifest":
        (newest / FILE).write_text((newest / FILE).read_text()[:-20])
    elif how == "of another step":
        write_manifest(newest, 5)


REASONS = {
    "cut": "model.safetensors has 7 bytes instead of 17",
    "changed": "model.safetensors is not what was written",
    "missing": "optimizer/state.pt is missing",
    "no manifest": "it has no manifest.json",
    "torn manifest": "its manifest.json is damaged",
    "of another step": "it holds step 5",
}


@pytest.mark.parametrize("how", REASONS)
def test_a_damaged_checkpoint_is_refused_with_its_reason_and_the_one_before_is_taken(folder, how):
    damage(folder, how)
    assert folder.newest_step() == (6 if how == "changed" else 4)  # sizes alone do not show a changed byte
    warnings = []
    assert folder.verified_checkpoint(warnings.append).name == "checkpoint-4"
    assert len(warnings) == 1 and REASONS[how] in warnings[0] and "checkpoint-6" in warnings[0]
    assert folder.newest_step() == 4
    assert (folder.checkpoints / "refused-checkpoint-6").is_dir()
    warnings.clear()
    assert folder.verified_checkpoint(warnings.append).name == "checkpoint-4" and not warnings


def test_a_run_with_damaged_checkpoints_only_is_not_started_over(folder):
    for step in (2, 4, 6):
        (folder.checkpoints / f"checkpoint-{step}" / "model.safetensors").unlink()
    for _ in range(2):  # nor by trying again
        with pytest.raises(CheckpointRefusedError, match="no complete checkpoint, only refused-checkpoint-2, "):
            folder.verified_checkpoint(lambda text: None)


def test_a_run_without_checkpoints_starts(make_config):
    config = make_config()
    run = RunFolder(config.run_dir)
    run.prepare(config)
    assert run.verified_checkpoint(pytest.fail) is None and run.newest_step() == 0


def test_a_checkpoint_of_an_older_version_can_be_accepted(folder):
    (folder.checkpoints / "checkpoint-6" / FILE).unlink()
    folder.verified_checkpoint(lambda text: None)
    assert accept(folder.checkpoints / "refused-checkpoint-6").name == "checkpoint-6"
    assert folder.verified_checkpoint(pytest.fail).name == "checkpoint-6"


def test_an_unfinished_save_or_deletion_is_cleaned_away(folder, make_config):
    stage(folder, 8)
    (folder.checkpoints / ".checkpoint-2").mkdir()
    assert folder.newest_step() == 6
    folder.prepare(make_config(run_dir=str(folder.path)))
    assert sorted(path.name for path in folder.checkpoints.iterdir()) == [f"checkpoint-{step}" for step in (2, 4, 6)]


def test_a_complete_checkpoint_is_never_replaced_and_a_damaged_one_is(folder):
    stage(folder, 6, "other")
    finish_checkpoint(folder.staging, 6, keep=3)
    file = folder.checkpoints / "checkpoint-6" / "model.safetensors"
    assert file.read_text() == "weights of step 6"
    file.write_text("")
    stage(folder, 6, "repeated")
    finish_checkpoint(folder.staging, 6, keep=3)
    assert file.read_text() == "repeated of step 6" and not fault(file.parent, 6, full=True)
    assert not list(folder.staging.iterdir())


def test_the_newest_and_the_best_stay(folder):
    for step, score in ((8, 0.9), (10, None), (12, 0.2), (14, 0.3)):
        stage(folder, step)
        finish_checkpoint(folder.staging, step, keep=2, keep_best=1, score=score)
    assert sorted(path.name for path in folder.checkpoints.glob("checkpoint-*")) == [
        "checkpoint-12",
        "checkpoint-14",
        "checkpoint-8",
    ]
    assert read_manifest(folder.checkpoints / "checkpoint-8").score == 0.9


def test_what_changes_no_step_may_change_when_a_run_resumes(make_config):
    config = make_config()
    run = RunFolder(config.run_dir)
    run.prepare(config)
    other = make_config(run_dir=config.run_dir, guards={"non_finite": "stop"}, checkpoint={"keep": 5})
    run.check(other)
    run.prepare(other)
    assert "keep: 5" in run.config.read_text()
    with pytest.raises(ConfigError, match="trainer.learning_rate"):
        run.check(make_config(run_dir=config.run_dir, trainer={"learning_rate": 0.5}))


def test_copies_and_what_file_managers_leave_beside_checkpoints_are_ignored(folder):
    step, checkpoint = folder.newest_step(), folder.newest_checkpoint()
    shutil.copytree(checkpoint, folder.checkpoints / f"{checkpoint.name}.bak")
    shutil.copytree(checkpoint, folder.checkpoints / f"{checkpoint.name} copy")
    (folder.checkpoints / "checkpoint-99").write_text("a file")
    (folder.checkpoints / ".DS_Store").write_bytes(b"\0")
    (folder.checkpoints / ".mine").mkdir()
    folder.clean()
    assert folder.newest_step() == step and folder.verified_checkpoint(pytest.fail) == checkpoint
    assert (folder.checkpoints / ".DS_Store").is_file() and (folder.checkpoints / ".mine").is_dir()
