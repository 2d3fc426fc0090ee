"""Files and folders appear whole or not at all, and what a file system refuses becomes one line."""

import errno
import shutil

import pytest
import torch

from blip3o_grpo.configs.atomic import StorageError, staged_file, staged_folder, storage_errors, write_atomically


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_failed_write_leaves_the_old_file_and_nothing_beside_it(tmp_path):
    file = tmp_path / "deep" / "summary.json"
    write_atomically(file, "old")
    with pytest.raises(KeyboardInterrupt), staged_file(file) as staged:
        staged.write_text("half of the n")
        raise KeyboardInterrupt
    assert file.read_text() == "old"
    assert names(file.parent) == ["summary.json"]
    write_atomically(file, b"new")
    assert file.read_text() == "new"


def test_a_folder_is_replaced_as_a_whole(tmp_path):
    target = tmp_path / "step-000001"
    for content in ("first", "second"):
        with staged_folder(target) as staged:
            (staged / "inner").mkdir()
            (staged / "inner" / content).write_text(content)
    with pytest.raises(RuntimeError, match="broken"), staged_folder(target) as staged:
        (staged / "third").touch()
        raise RuntimeError("broken")
    assert names(target / "inner") == ["second"]
    assert names(tmp_path) == ["step-000001"]


def test_a_full_disk_is_one_line_with_what_is_free(small_disk):
    target = small_disk / "weights.pt"
    write_atomically(target, "old")
    for write in (
        lambda path: path.write_bytes(bytes(8 * 2**20)),
        lambda path: torch.save(torch.zeros(2 * 2**20), path),  # which has errors of its own
    ):
        with pytest.raises(StorageError, match=r"cannot write .*weights\.pt: No space left on device \(0\.0\d GB of"):  # noqa: SIM117
            with staged_file(target) as staged:
                write(staged)
        assert target.read_text() == "old"
        assert names(small_disk) == ["weights.pt"]


def test_a_read_only_disk_is_one_line(small_disk, remount):
    remount(small_disk, "ro")
    with pytest.raises(StorageError, match=r"cannot write .*a\.txt: Read-only file system"):
        write_atomically(small_disk / "folder" / "a.txt", "text")


def test_errors_about_something_else_pass(tmp_path):
    with pytest.raises(FileNotFoundError), storage_errors(tmp_path):
        (tmp_path / "missing").read_text()
    with pytest.raises(RuntimeError, match="shapes"), storage_errors(tmp_path):
        raise RuntimeError("shapes do not fit")
    with pytest.raises(StorageError, match="Permission denied"), storage_errors(tmp_path):
        raise OSError(errno.EACCES, "Permission denied")
    shutil.rmtree(tmp_path)
