"""A warm start keeps the promises of `train`: one process per folder, signals, full disks, resuming to the same end."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from blip3o_grpo.configs import ConfigError, dump_config, load_warmstart_config
from blip3o_grpo.configs.atomic import StorageError
from blip3o_grpo.configs.policy import PolicySection
from blip3o_grpo.run.environment import ENVIRONMENT
from blip3o_grpo.run.files import read_object
from blip3o_grpo.run.folder import RunFolder, policy_folder
from blip3o_grpo.run.locks import RunFolderInUseError, hold
from blip3o_grpo.run.manifest import fault
from blip3o_grpo.run.stopping import RunStopped
from blip3o_grpo.warmstart import WarmstartError
from blip3o_grpo.warmstart.training import Learner
from tests.conftest import mounted
from tests.grpo.warmstart.conftest import read_lines


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def assert_same_end(run_dir: Path, other: Path) -> None:
    """The same policy and metrics, every step once, and nothing else left than in the other run folder."""
    ours, theirs = weights(run_dir / "policy"), weights(other / "policy")
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-6) for name in theirs)
    lines, expected = read_lines(run_dir / "metrics.jsonl"), read_lines(other / "metrics.jsonl")
    assert [line["step"] for line in lines] == list(range(1, len(expected) + 1))
    for line, right in zip(lines, expected, strict=True):
        assert line == pytest.approx(right, abs=1e-4)
    assert names(run_dir) == names(other)


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.fixture
def during(monkeypatch):
    """Does something in the middle of an optimiser step."""

    def patch(step: int, act):
        original = Learner.step

        def acting(self, batch, done):
            if done + 1 == step:
                act()
            return original(self, batch, done)

        monkeypatch.setattr(Learner, "step", acting)
        return lambda: monkeypatch.setattr(Learner, "step", original)

    return patch


@pytest.fixture
def hangup():
    """SIGHUP as a terminal's shell leaves it, also where the tests themselves run under `nohup`, which is respected."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("hangup")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_the_step_writes_a_checkpoint_and_the_run_resumes_to_the_same_end(
    config, run, during, tmp_path, number
):
    settings = {"anchor_weight": 1.0, "max_steps": 5, "checkpoint_every_steps": 100}
    whole, _ = run(config, **settings)
    undo = during(2, lambda: os.kill(os.getpid(), number))
    stopped = RunFolder(tmp_path / "stopped")
    with pytest.raises(RunStopped) as caught:
        run(config, **settings, run_dir=str(stopped.path))
    assert caught.value.exit_code == 128 + number
    assert stopped.newest_step() == 2 and fault(stopped.newest_checkpoint(), 2, full=True) is None
    assert [line["step"] for line in read_lines(stopped.metrics)] == [1, 2]
    assert not stopped.stop.exists() and not stopped.policy.exists()
    undo()
    run(config, **settings, run_dir=str(stopped.path))
    assert_same_end(stopped.path, whole.run_dir)
    assert [start["step"] for start in read_object(stopped.environment, ENVIRONMENT)["starts"]] == [0, 2]


def test_a_signal_in_the_last_step_leaves_a_finished_run(config, run, during):
    during(6, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(RunStopped):
        run(config)
    assert (Path(config.run_dir) / "policy" / "config.json").is_file()


def test_a_second_signal_stops_at_once_and_leaves_nothing_half_written(config, run, during, tmp_path):
    def twice():
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)

    whole, _ = run(config)
    undo = during(5, twice)
    again = config.model_copy(update={"run_dir": str(tmp_path / "again")})
    with pytest.raises(RunStopped):
        run(again)
    assert RunFolder(again.run_dir).newest_step() == 3
    undo()
    run(again)
    assert_same_end(Path(again.run_dir), whole.run_dir)


def test_a_finished_run_answers_at_once(config, run, pictures, say, monkeypatch):
    first, _ = run(config)
    shutil.rmtree(pictures)  # nothing but its own folder is read
    monkeypatch.setattr("blip3o_grpo.warmstart.training.train", pytest.fail)
    before = names(first.run_dir)
    again, _ = run(config)
    assert again == first and again.steps == 6 and set(again.losses) == {"cross_entropy", "flow_matching"}
    assert f"policy: {first.policy}" in say.export_text() and names(first.run_dir) == before
    assert policy_folder(str(first.run_dir)) == first.policy


def test_a_run_folder_of_another_configuration_is_refused(config, run, tmp_path):
    run(config)
    for changes, keys in (
        ({"learning_rate": 1e-5}, "learning_rate"),
        ({"preprocessing": "centre_crop", "trains": ("ar",)}, "preprocessing, trains"),
        ({"policy": PolicySection()}, "policy.path"),
    ):
        with pytest.raises(ConfigError, match=rf"another configuration \(differs in {keys}\)"):
            run(config, **changes)
    for steps in (4, 9):
        with pytest.raises(
            ConfigError, match="max_steps cannot be another one now: the cosine .* laid out for 6 steps"
        ):
            run(config, max_steps=steps)
    run(config, checkpoint_every_steps=5, threads=2)  # these change no step
    assert load_warmstart_config(tmp_path / "run" / "config.yaml") == config


def test_relative_paths_mean_the_same_when_the_run_is_resumed(config, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    changes = {"run_dir": "run", "images": "pictures", "captions": "pictures/captions.jsonl"}
    first, _ = run(config, **changes)
    assert run(config, **changes)[0] == first and run(config)[0] == first


def test_a_folder_that_holds_something_else_is_refused(config, run, make_config, tmp_path):
    training = make_config()
    RunFolder(training.run_dir).prepare(training)
    with pytest.raises(ConfigError, match="holds no run of `warmstart`"):
        run(config, run_dir=training.run_dir)
    warm = RunFolder(tmp_path / "warm")
    warm.prepare(config)
    with pytest.raises(ConfigError, match="holds no run of `train`"):
        RunFolder(warm.path).check(make_config(run_dir=str(warm.path)))
    (tmp_path / "other" / "policy").mkdir(parents=True)
    with pytest.raises(ConfigError, match="is no run folder .* would replace its policy"):
        run(config, run_dir=str(tmp_path / "other"))
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="is a file"):
        run(config, run_dir=str(tmp_path / "file"))


def test_a_second_process_on_the_folder_is_refused_and_touches_nothing(config, run):
    folder = RunFolder(config.run_dir)
    with hold(folder.lock):
        before = names(folder.path)
        with pytest.raises(RunFolderInUseError, match=f"in use by process {os.getpid()}"):
            run(config)
        assert names(folder.path) == before
    run(config)


def test_a_damaged_checkpoint_is_refused_and_the_run_does_not_start_over(config, run, during, say):
    during(4, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(RunStopped):
        run(config)
    folder = RunFolder(config.run_dir)
    state = folder.newest_checkpoint() / "optimizer.pt"
    content = bytearray(state.read_bytes())
    content[len(content) // 2] ^= 1
    state.write_bytes(content)
    with pytest.raises(ValueError, match=r"no complete checkpoint, only refused-checkpoint-4"):
        run(config)
    assert "checkpoint-4 is not resumed from: optimizer.pt is not what was written" in say.export_text()


def test_a_loss_that_is_not_finite_is_one_line_and_reaches_no_weight(config, run, policy_path, tmp_path):
    spoilt = shutil.copytree(policy_path, tmp_path / "spoilt")
    values = weights(spoilt)
    values["model.norm.weight"][0] = float("nan")
    save_file(values, spoilt / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WarmstartError, match=r"step 1: the loss is nan; give a lower learning_rate"):
        run(config, policy=PolicySection(path=str(spoilt)))
    assert not read_lines(Path(config.run_dir) / "metrics.jsonl")


def test_a_gradient_that_is_not_finite_leaves_the_weights_as_they_are(config, start, load):
    from blip3o_grpo.warmstart.loss import draw_batch

    learner = Learner(start, config)
    batch = draw_batch(start, *load(start, config)[:2], config, 0)
    learner.make_optimizer(batch)
    start.connector[0].weight.register_hook(lambda gradient: gradient * float("inf"))
    before = start.connector[2].weight.clone()
    with pytest.raises(WarmstartError, match=r"step 1: the gradient is (inf|nan)"):
        learner.step(batch, 0)
    assert torch.equal(start.connector[2].weight, before)


def test_what_a_run_needs_is_compared_with_what_is_free(config, run, tmp_path):
    for disk in mounted(tmp_path / "disk", "4m"):
        with pytest.raises(StorageError, match=r"GB are free, the run needs .* checkpoints of .* GB, the policy of"):
            run(config, run_dir=str(disk / "run"))
        assert not list(disk.rglob("*.safetensors"))


@pytest.mark.parametrize("megabytes", [1, 20, 45, 75], ids=["encoded", "staging", "optimizer", "second checkpoint"])
def test_a_full_disk_is_one_line_and_with_room_the_run_goes_on(
    config, run, remount, monkeypatch, tmp_path, policy_path, megabytes
):
    """Wherever it fills up: nothing half-written stays, and the last good checkpoint does."""
    settings = {"checkpoint_every_steps": 2}
    whole, _ = run(config, **settings)
    monkeypatch.setattr("blip3o_grpo.warmstart.training.check_room", lambda *_: None)
    size = sum(file.stat().st_size for file in policy_path.rglob("*") if file.is_file())
    for disk in mounted(tmp_path / "disk", str(int(size * megabytes / 20))):
        folder = RunFolder(disk / "run")
        with pytest.raises(StorageError, match=r"cannot write .*: No space left on device \(0\.\d\d GB of ") as caught:
            run(config, **settings, run_dir=str(folder.path))
        assert "\n" not in str(caught.value)
        assert not list(folder.staging.glob("*")) and not list(folder.path.glob(".*.tmp*"))
        assert folder.newest_step() == (2 if megabytes == 75 else 0)
        remount(disk, "size=1g")
        run(config, **settings, run_dir=str(folder.path))
        assert_same_end(folder.path, whole.run_dir)


def test_a_read_only_disk_is_one_line(config, run, remount, small_disk):
    remount(small_disk, "ro")
    with pytest.raises(StorageError, match="cannot write .*Read-only file system"):
        run(config, run_dir=str(small_disk / "run"))


def test_the_saved_configuration_is_the_whole_one(config, run):
    run(config)
    text = (Path(config.run_dir) / "config.yaml").read_text()
    assert text == dump_config(config) and "preprocessing: released" in text
