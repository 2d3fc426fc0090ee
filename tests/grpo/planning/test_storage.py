"""A full or read-only disk: one line, nothing half-written, the last good checkpoint intact."""

import pytest

from blip3o_grpo.configs.atomic import StorageError
from blip3o_grpo.planning.disk import check_room, checkpoint_bytes
from blip3o_grpo.run.folder import RunFolder
from blip3o_grpo.run.manifest import fault
from tests.conftest import mounted


def test_the_size_of_a_checkpoint_is_known_before_the_run(make_config, run_toy, policy_path):
    config = make_config(trainer={"max_steps": 1}, checkpoint={"every_steps": 1})
    run_toy(config)
    folder = RunFolder(config.run_dir)
    actual = sum(file.stat().st_size for file in folder.newest_checkpoint().rglob("*"))
    assert checkpoint_bytes(config, policy_path) == pytest.approx(actual, rel=0.05)
    check_room(config, folder, policy_path)
    enormous = make_config(checkpoint={"keep": 10**9})
    with pytest.raises(StorageError, match=r"GB are free, the run needs .* checkpoints of .* checkpoint\.keep"):
        check_room(enormous, folder, policy_path)


@pytest.fixture
def disk(tmp_path, make_config, policy_path):
    """A file system with room for one and a half checkpoints."""
    size = checkpoint_bytes(make_config(), policy_path)
    yield from mounted(tmp_path / "disk", str(size * 3 // 2))


def test_a_disk_that_fills_up_costs_the_checkpoint_in_work_only(make_config, run_toy, disk, remount):
    config = make_config(run_dir=str(disk / "run"), trainer={"max_steps": 3}, checkpoint={"every_steps": 1, "keep": 5})
    folder = RunFolder(config.run_dir)
    with pytest.raises(StorageError, match=r"cannot write .*checkpoint-2: No space left on device \(0\.00 GB of "):
        run_toy(config)
    assert folder.newest_step() == 1 and not fault(folder.newest_checkpoint(), 1, full=True)
    assert not list(folder.staging.glob("*"))
    remount(disk, "size=1g")
    _, _, metrics = run_toy(config)
    assert [line["step"] for line in metrics] == [1, 2, 3]


def test_a_read_only_disk_is_told_before_anything_is_done(make_config, run_toy, disk, remount):
    config = make_config(run_dir=str(disk / "run"), trainer={"max_steps": 2}, checkpoint={"every_steps": 1})
    folder = RunFolder(config.run_dir)
    remount(disk, "size=1g")
    run_toy(config, hang_at=2)
    remount(disk, "ro")
    with pytest.raises(StorageError, match=r"cannot write .*: Read-only file system"):
        run_toy(config)
    assert folder.newest_step() == 1 and not fault(folder.newest_checkpoint(), 1, full=True)
