"""Finds, inside what Ray raises, the error that our own code meant for the user, and shows it in one line.

What a machine lacks (memory, disk) and a process that was killed are told in one line too; bugs keep their traceback.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from typing import Any

import typer
from rich.console import Console

from blip3o_grpo.configs.atomic import REFUSALS
from blip3o_grpo.rewards.redaction import redact
from blip3o_grpo.rollout.ray_seams import DEATHS, OUT_OF_MEMORY, inner_errors
from blip3o_grpo.terminal import show

PACKAGE = __name__.split(".")[0]
READABLE = 500
"""Characters of each end of a line that is longer than two such ends."""
RESUMES = "the same command resumes from the last checkpoint, if there is one"


class OutOfMemory(ValueError):
    """A process needed more memory than there is."""


class OutOfDisk(ValueError):
    """The file system refused a write of a library."""


class WorkerDiedError(ValueError):
    """A process died without saying why."""


class Running:
    """The command that this process runs, for what must be said without it."""

    resumes = False

    def words(self) -> str:
        """What to do after an interruption."""
        return RESUMES if self.resumes else "give the same command again"


running = Running()


def user_error(error: BaseException) -> ValueError | None:
    """The error to show in one line, or None if it is a bug.

    The first in the chain that one of our packages defined for users; else what the machine lacked; else that a process
    died. Ray wraps a worker's exception in its own classes (`cause`, `worker_failures`); those are opened.
    """
    links = list(_chain(error))
    for link in links:
        if isinstance(link, ValueError) and is_ours(link):
            return link
    return next((found for link in links if (found := _shortage(link))), None) or next(
        (found for link in links if (found := _death(link))), None
    )


def is_ours(error: BaseException) -> bool:
    """Whether one of our packages defined the error."""
    return type(error).__module__.split(".")[0] == PACKAGE


def last_line(error: BaseException) -> str:
    """The last line of an error's text that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def shortened(text: str) -> str:
    """The text without its middle where that is longer than anybody reads; the reason stands at the end."""
    return text if len(text) <= 2 * READABLE else f"{text[:READABLE]} ... {text[-READABLE:]}"


def file_error(error: BaseException) -> OSError | None:
    """The error itself if the file system refused a path that it names."""
    return error if isinstance(error, OSError) and error.filename is not None else None


def one_line_errors(command: Callable[..., None] | None = None, *, resumes: bool = False) -> Callable[..., Any]:
    """Turn the errors that our packages raise for users into one red line and exit code 2, a signal into 128 + it.

    Args:
        command: what to wrap; without it, a decorator is returned.
        resumes: the command continues work that was interrupted, and says so where it was.
    """
    if command is None:
        return functools.partial(one_line_errors, resumes=resumes)

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        running.resumes = resumes
        try:
            command(*args, **kwargs)
        except KeyboardInterrupt as stop:
            show(Console(stderr=True), f"stopped; {RESUMES}" if resumes else "stopped")
            raise typer.Exit(getattr(stop, "exit_code", 130)) from None
        except Exception as error:
            ours = user_error(error) or file_error(error)
            if ours is None:
                raise
            said = f"{ours.filename}: {ours.strerror}" if isinstance(ours, OSError) else str(ours)
            lines = [line.strip() for line in said.splitlines() if line.strip()] or [type(ours).__name__]
            text = lines[0] if len(lines) == 1 else f"{lines[0]}: {lines[-1]}"  # between them: a worker's traceback
            shortage = next((found for link in _chain(error) if (found := _shortage(link))), None)
            if shortage and shortage is not ours and isinstance(shortage, OutOfMemory):
                text = f"{lines[0]}: {shortage}"
            if resumes and isinstance(ours, WorkerDiedError):
                text = f"{text}; {RESUMES}"
            show(Console(stderr=True), ("error:", "bold red"), f" {shortened(redact(text))}")
            raise typer.Exit(2) from None

    return wrapped


def _shortage(error: BaseException) -> ValueError | None:
    """What the machine lacked, by the words of Python, torch and Ray; no library of theirs is imported for it."""
    kind, text = type(error), str(error)
    if kind.__name__ == "OutOfMemoryError" and kind.__module__.startswith("torch"):
        return OutOfMemory(
            f"GPU memory is full: {text.splitlines()[0].strip()} Lower trainer.micro_batch_size or "
            "rollout.prompts_per_chunk, shard, or give a larger GPU"
        )
    if isinstance(error, MemoryError) or "can't allocate memory" in text:
        return OutOfMemory(f"out of memory: {text.splitlines()[-1] if text else 'Python could not allocate any'}")
    if kind.__name__ == "OutOfMemoryError" or (kind.__module__.startswith("ray") and re.search(OUT_OF_MEMORY, text)):
        return OutOfMemory(
            "a worker was killed because its machine ran out of memory (Ray's memory monitor); use fewer workers, "
            "smaller batches, or more memory"
        )
    if isinstance(error, OSError) and error.errno in REFUSALS:
        where = f"{error.filename}: " if error.filename else ""
        return OutOfDisk(f"{where}{error.strerror}")
    return None


def _death(error: BaseException) -> ValueError | None:
    if type(error).__name__ not in DEATHS:
        return None
    return WorkerDiedError(
        "a process of the run died: it was killed (by hand, or by the kernel for want of memory), it crashed, or its "
        "machine was lost"
    )


def _chain(error: BaseException | None, seen: frozenset[int] = frozenset()) -> Iterator[BaseException]:
    if error is None or id(error) in seen:
        return
    seen |= {id(error)}
    yield error
    for link in (*inner_errors(error), error.__cause__):
        if isinstance(link, BaseException):
            yield from _chain(link, seen)
