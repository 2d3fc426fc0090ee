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
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from blip3o_grpo.configs.atomic import storage_errors

NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)
POLL_S = 0.2


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
    """
    with storage_errors(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if _lock(descriptor, wait_s):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        else:
            holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip() or "another process"
            raise RunFolderInUseError(
                f"{file.parent} is in use by {holder}; wait for it to end, stop it, or give another run_dir"
            )
        yield
    finally:
        os.close(descriptor)  # and with it the lock


def holder_pid(file: Path) -> int | None:
    """Process that holds or last held a lock."""
    words = file.read_text(encoding="utf-8").split() if file.is_file() else []
    return int(words[1]) if len(words) > 1 else None


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
