"""Opens files that must be regular ones: a pipe, device, socket or folder is refused at once, and nothing waits for it.

One rule for everything that a user names and for everything a run finds in its folder, process substitutions of a shell
(`<(...)`, a pipe) included: such files are read more than once, and by other processes. Imports nothing: reward workers
in other environments use it too.
"""

from __future__ import annotations

import errno
import os
import stat
from io import BufferedReader
from pathlib import Path

MAX_BYTES = 2**30
"""Of a file that is read whole; far more than a prompt file, a recipe or a run's metrics ever have."""
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)
_NOTHING_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


class NotRegularError(OSError, ValueError):
    """What stands where a regular file is expected; or a file that is too large to be read whole."""

    def __init__(self, path: str | Path, what: str, number: int = errno.EINVAL):
        super().__init__(number, what, str(path))

    def __reduce__(self) -> tuple:
        return type(self), (self.filename, self.strerror, self.errno)

    def __str__(self) -> str:
        return f"{self.filename}: {self.strerror}"


def other_kind(path: str | Path) -> str | None:
    """What stands there instead of a regular file, in words; None: a regular file, or nothing."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return None
    return _kind(mode)


def is_regular(path: str | Path) -> bool:
    """Whether a regular file, or a link to one, is there; False: nothing is.

    Raises:
        NotRegularError: something else is there. Taken for missing, it would be overwritten, or named wrongly.
    """
    try:
        mode = os.stat(path).st_mode
    except ValueError:  # NUL
        return False
    except OSError as error:
        if error.errno in _NOTHING_THERE:
            return False
        raise
    if kind := _kind(mode):
        raise NotRegularError(path, f"{kind}, not a regular file")
    return True


def open_regular(path: str | Path) -> BufferedReader:
    """The file, opened for reading.

    Raises:
        NotRegularError: it is something else.
        OSError: it cannot be opened.
    """
    if kind := other_kind(path):  # first: a socket cannot be opened, and opening some devices does something
        raise NotRegularError(path, f"{kind}, not a regular file")
    # Without blocking: whatever has taken the file's place since then, nobody waits for its writer.
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb")
    if kind := _kind(os.fstat(file.fileno()).st_mode):
        file.close()
        raise NotRegularError(path, f"{kind}, not a regular file")
    return file


def read_bytes(path: str | Path, most: int = MAX_BYTES) -> bytes:
    """All of the file.

    Raises:
        NotRegularError: it is something else, or has more than `most` bytes.
        OSError: it cannot be read.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        data = (file.read(most + 1) or b"") if size <= most else b""
    if max(size, len(data)) > most:
        raise NotRegularError(path, f"larger than {most} bytes", errno.EFBIG)
    return data


def read_text(path: str | Path, encoding: str = "utf-8", most: int = MAX_BYTES) -> str:
    """All of the file as text, with `\\n` at the ends of lines.

    Raises:
        UnicodeDecodeError: the bytes are no text of this encoding.
        NotRegularError, OSError: as `read_bytes`.
    """
    text = read_bytes(path, most).decode(encoding)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _kind(mode: int) -> str | None:
    return None if stat.S_ISREG(mode) else next((name for fits, name in _KINDS if fits(mode)), "something else")
