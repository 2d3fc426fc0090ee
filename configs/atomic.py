"""Files and folders that appear whole or not at all, also after a crash or a power cut.

Everything is written beside its target, flushed to the disk (fsync) and renamed. What the file system refuses becomes
one line: what, where, how much is free. It lies in `configs` because every other package writes files.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from blip3o_grpo.configs.regular_files import other_kind

REFUSALS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO})
KERNEL = ("/proc", "/sys", "/dev")
"""Folders that are windows into the kernel; root may write to some of them, and keeps nothing there."""
SHARED_MEMORY = "/dev/shm"
"""An ordinary folder, in memory."""
FULL_BYTES = 16 * 2**20
"""Less than this is free on a disk that a large write has just filled."""


class StorageError(ValueError):
    """The file system refused a write: full, over quota, read-only, not permitted, broken."""


def write_atomically(path: Path, text: str | bytes) -> None:
    """Write a file so that readers see the old one or the new one, never half of it.

    Raises:
        StorageError: the file system refused.
    """
    with staged_file(path) as staged:
        if isinstance(text, bytes):
            staged.write_bytes(text)
        else:
            staged.write_text(text, encoding="utf-8")


@contextmanager
def staged_file(path: Path) -> Iterator[Path]:
    """A path beside `path`, of the same suffix, to write to; it takes the place of `path` when the block ends well."""
    staged = path.with_name(f".{path.stem}.tmp{path.suffix}")
    _refuse_other_kinds(path)
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield staged
            sync(staged)
            os.replace(staged, path)
        except BaseException:
            with contextlib.suppress(OSError):
                staged.unlink(missing_ok=True)
            raise
        sync(path.parent)


@contextmanager
def staged_folder(target: Path) -> Iterator[Path]:
    """An empty folder beside `target` to fill; it takes the place of `target` when the block ends well.

    A kill between the two renames of a replacement leaves neither: use it only for what the same command writes again.
    """
    staged, old = target.with_name(f".{target.name}.tmp"), target.with_name(f".{target.name}.old")
    with storage_errors(target):
        for leftover in (staged, old):
            shutil.rmtree(leftover, ignore_errors=True)
        staged.mkdir(parents=True)
        try:
            yield staged
            for folder, _, files in os.walk(staged):
                for name in files:
                    sync(Path(folder, name))
                sync(Path(folder))
            if target.exists():
                target.rename(old)
            staged.rename(target)
        except BaseException:
            shutil.rmtree(staged, ignore_errors=True)
            raise
        sync(target.parent)
        shutil.rmtree(old, ignore_errors=True)


def sync(path: Path) -> None:
    """Flush a file, or a folder's list of names, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems cannot flush a folder
            raise
    finally:
        os.close(descriptor)


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn what the file system refuses inside the block into a `StorageError` about `path`.

    torch and safetensors report a full disk as errors of their own; a failed write is then tried again, small.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        reason = refusal(error)
        if reason is None:
            raise
        named = Path(error.filename) if isinstance(error, OSError) and isinstance(error.filename, str) else path
        ours = path.parent in named.parents or named in path.parents
        raise StorageError(describe_refusal(path if ours else named, reason)) from error
    except Exception as error:  # safetensors derives its error from Exception
        found = re.search(r"os error (\d+)", str(error))
        if not found or int(found[1]) not in REFUSALS:
            raise
        raise StorageError(describe_refusal(path, os.strerror(int(found[1])))) from error


def refusal(error: Exception) -> str | None:
    """What the file system said, or None if the error is about something else."""
    if isinstance(error, OSError):
        return os.strerror(error.errno) if error.errno in REFUSALS else None
    # torch.save: "PytorchStreamWriter failed writing file ...", or a failed check where it closes the file
    if re.search(r"PytorchStreamWriter|inline_container|iostream error", str(error)):
        return "the write failed"
    return None


def describe_refusal(path: Path, reason: str) -> str:
    """One line: what could not be written, why, and how much is free where it should have gone."""
    holder = next((folder for folder in (path, *path.parents) if folder.exists()), Path("/"))
    usage = shutil.disk_usage(holder)
    if usage.free < FULL_BYTES and reason == "the write failed":
        reason = os.strerror(errno.ENOSPC)
    return f"cannot write {path}: {reason} ({usage.free / 1e9:.2f} GB of {usage.total / 1e9:.2f} GB free there)"


def require_writable(path: Path) -> None:
    """Refuse a file or folder that could not be written, before the work whose result it is to hold.

    Raises:
        StorageError: naming the file that stands where a folder must be, or the folder that may not be written to.
    """
    real = Path(os.path.realpath(path))
    if real.exists() and not real.is_dir():
        _refuse_other_kinds(path)
    for root in map(Path, KERNEL):
        if root in (real, *real.parents) and Path(SHARED_MEMORY) not in (real, *real.parents):
            raise StorageError(f"cannot write {path}: {root} is the kernel's and no disk; give another place")
    holder = next(place for place in (path.absolute(), *path.absolute().parents) if place.exists())
    if not holder.is_dir() and holder != path.absolute():
        raise StorageError(f"cannot write {path}: {holder} is {other_kind(holder) or 'a file'}")
    if not os.access(holder, os.W_OK):
        read_only = os.statvfs(holder).f_flag & os.ST_RDONLY
        raise StorageError(describe_refusal(path, os.strerror(errno.EROFS if read_only else errno.EACCES)))


def _refuse_other_kinds(path: Path) -> None:
    """A write would wait for a pipe's reader for ever, and a rename would put a file in the place of a device."""
    if kind := other_kind(path):
        raise StorageError(f"cannot write {path}: {kind} is there")


def require_room(folder: Path, needed: int, what: str) -> None:
    """Refuse to start what the disk cannot hold.

    Args:
        folder: where it goes; need not exist yet.
        needed: bytes.
        what: what needs them, and what helps, for the message.

    Raises:
        StorageError: naming what is needed and what is free.
    """
    holder = next(path for path in (folder, *folder.parents) if path.is_dir())
    free = shutil.disk_usage(holder).free
    if needed > free:
        raise StorageError(f"{folder}: {free / 1e9:.2f} GB are free, the run needs {needed / 1e9:.2f} GB: {what}")
