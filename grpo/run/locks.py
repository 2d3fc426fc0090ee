"""One process at a time on a run folder: file locks, which the kernel drops when their holder dies, however it dies.

`RUN/.lock` belongs to the driver. `RUN/.lock-trainer` belongs to the rank that writes: the driver may be killed while
its Ray workers live on for some seconds, and its successor must not write beside them. A file system without locks
(some network mounts) gives no such protection.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from blip3o_grpo.configs.atomic import storage_errors

NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)
POLL_S = 0.2


HOLDER = b"process "
"""How the text in a lock begins."""


class LockRefusedError(ValueError):
    """What lies where a lock should is something else."""


class RunFolderInUseError(ValueError):
    """Another process works on the run folder."""


@contextmanager
def hold(file: Path, wait_s: float = 0.0) -> Iterator[None]:
    """Hold the lock `file` inside the block.

    Args:
        file: created if missing and never deleted; names its holder.
        wait_s: how long another holder may take to go.

    Raises:
        RunFolderInUseError: naming the holder's process and host.
        LockRefusedError: what bears the lock's name is no lock; it is left as it is.
    """
    with storage_errors(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor = _open(file)
    try:
        _refuse_other_files(file, descriptor)
        if _lock(descriptor, wait_s):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, HOLDER + f"{os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        else:
            holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip() or "another process"
            raise RunFolderInUseError(
                f"{file.parent} is in use by {holder}; wait for it to end, stop it, or give another run_dir"
            )
        yield
    finally:
        os.close(descriptor)  # and with it the lock


def _open(file: Path) -> int:
    if file.is_dir():
        raise LockRefusedError(f"{file} is a folder, and a run's lock is a file; move it away")
    try:
        return os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise LockRefusedError(f"{file} is a symbolic link, whose target a run would overwrite; delete it") from None


def _refuse_other_files(file: Path, descriptor: int) -> None:
    """A lock is empty or names its holder: all else (also through a hard link) is somebody's, and stays."""
    regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
    if not regular or os.pread(descriptor, len(HOLDER), 0) not in (b"", HOLDER):
        raise LockRefusedError(f"{file} is not a run's lock, and a run would overwrite it; move it away")


def holder_pid(file: Path) -> int | None:
    """Process that holds or last held a lock."""
    words = file.read_bytes().split() if file.is_file() else []
    return int(words[1]) if len(words) > 1 and words[1].isdigit() else None


def is_held(file: Path) -> bool:
    """Whether a process on this machine holds a lock; looks without touching it, as a run may start at this moment."""
    try:
        inode = str(os.stat(file, follow_symlinks=False).st_ino)
        held = Path("/proc/locks").read_text(encoding="ascii").splitlines()
    except OSError:  # no lock, or no Linux
        return False
    # `1: FLOCK  ADVISORY  WRITE 4711 fe:01:1835049 0 EOF`; a process that waits has `->` before FLOCK
    return any(words[1] == "FLOCK" and words[5].split(":")[-1] == inode for words in map(str.split, held))


def _lock(descriptor: int, wait_s: float) -> bool:
    deadline = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(POLL_S)
        except OSError as error:
            if error.errno in NO_LOCKS:
                return True
            raise
