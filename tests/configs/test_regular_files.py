"""The one reader of files that must be regular: what else there is gets told, and is never waited for."""

import os
import pickle

import pytest

from blip3o_grpo.configs.atomic import StorageError, require_writable, write_atomically
from blip3o_grpo.configs.regular_files import (
    NotRegularError,
    is_regular,
    open_regular,
    other_kind,
    read_bytes,
    read_text,
)
from tests.robustness.cases_files import KINDS


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "4 TiB"])
@pytest.mark.parametrize("read", [is_regular, open_regular, read_bytes, read_text])
def test_what_is_no_regular_file_is_told(tmp_path, kind, read):
    make, said = KINDS[kind]
    make(tmp_path / "x")
    assert other_kind(tmp_path / "x") == said
    with pytest.raises(NotRegularError, match=f"x: {said}, not a regular file") as error:
        read(tmp_path / "x")
    assert isinstance(error.value, OSError) and error.value.filename == str(tmp_path / "x")
    assert str(pickle.loads(pickle.dumps(error.value))) == str(error.value)


def test_a_pipe_with_a_writer_is_refused_too(tmp_path):
    """As a shell's `<(...)` is one."""
    read, write = os.pipe()
    os.write(write, b"a: 1\n")
    with pytest.raises(NotRegularError, match="a pipe, not a regular file"):
        read_bytes(f"/dev/fd/{read}")
    os.close(read)
    os.close(write)


def test_more_bytes_than_such_a_file_has_are_not_read(tmp_path):
    """By the size that the file has, and, where it says 0 as those of `/proc` do, by what comes."""
    (tmp_path / "x").write_bytes(b"12345")
    assert read_bytes(tmp_path / "x", 5) == b"12345"
    for file, most in ((tmp_path / "x", 4), ("/proc/self/status", 10)):
        with pytest.raises(NotRegularError, match=f"larger than {most} bytes"):
            read_bytes(file, most)


def test_nothing_there_is_no_error_where_it_is_asked_for(tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "file").write_text("a\r\nb\rc")
    for name in ("none", "loop", "file/below", "a\0b"):
        assert not is_regular(tmp_path / name) and other_kind(tmp_path / name) is None
    (tmp_path / "link").symlink_to(tmp_path / "file")
    assert is_regular(tmp_path / "link")
    assert read_text(tmp_path / "link") == "a\nb\nc"
    with pytest.raises(FileNotFoundError):
        read_bytes(tmp_path / "none")


@pytest.mark.parametrize("kind", ["a pipe", "a socket", "a link to a device"])
def test_nothing_is_written_in_the_place_of_what_is_no_file(tmp_path, kind):
    make, said = KINDS[kind]
    make(tmp_path / "x")
    for write in (require_writable, lambda path: write_atomically(path, "text")):
        with pytest.raises(StorageError, match=f"cannot write .*x: ({said} is there|/dev is the kernel's)"):
            write(tmp_path / "x")
    assert other_kind(tmp_path / "x") == said


@pytest.mark.parametrize("path", ["/proc/x", "/sys/x", "/dev/x/y"])
def test_the_kernels_folders_hold_nothing(path, tmp_path):
    with pytest.raises(StorageError, match="is the kernel's and no disk"):
        require_writable(type(tmp_path)(path))
    link = tmp_path / "link"
    link.symlink_to(path)
    with pytest.raises(StorageError, match="is the kernel's and no disk"):
        require_writable(link / "run")
