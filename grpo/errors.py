"""Finds, inside what Ray raises, the error that our own code meant for the user, and shows it in one line."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape

from rewards.redaction import redact

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
PACKAGES = ("configs", "policies", "rewards", "rollout", "grpo")


def user_error(error: BaseException) -> ValueError | None:
    """The first error in the chain that one of our packages defined for users, or None if it is a bug or a crash.

    Ray wraps a worker's exception in its own classes (`cause`, `worker_failures`); those are opened.
    """
    for link in _chain(error):
        if isinstance(link, ValueError) and type(link).__module__.split(".")[0] in PACKAGES:
            return link
    return None


def file_error(error: BaseException) -> OSError | None:
    """The error itself if the file system refused a path that it names."""
    return error if isinstance(error, OSError) and error.filename is not None else None


def one_line_errors(command: Callable[..., None]) -> Callable[..., None]:
    """Turn the errors that our packages raise for users into one red line and exit code 2."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except KeyboardInterrupt:
            Console(stderr=True).print("stopped; the same command resumes from the last checkpoint")
            raise typer.Exit(130) from None
        except Exception as error:
            ours = user_error(error) or file_error(error)
            if ours is None:
                raise
            lines = [line.strip() for line in str(ours).splitlines() if line.strip()] or [type(ours).__name__]
            text = lines[0] if len(lines) == 1 else f"{lines[0]}: {lines[-1]}"  # between them: a worker's traceback
            text = _CONTROL.sub("\N{REPLACEMENT CHARACTER}", redact(text))  # no prompt or server steers the terminal
            Console(stderr=True).print(f"[bold red]error:[/bold red] {escape(text)}", soft_wrap=True, highlight=False)
            raise typer.Exit(2) from None

    return wrapped


def _chain(error: BaseException | None, seen: frozenset[int] = frozenset()) -> Iterator[BaseException]:
    if error is None or id(error) in seen:
        return
    seen |= {id(error)}
    yield error
    inner = [*getattr(error, "worker_failures", {}).values(), getattr(error, "controller_failure", None)]
    for link in (*inner, getattr(error, "cause", None), getattr(error, "_base_exc", None), error.__cause__):
        if isinstance(link, BaseException):
            yield from _chain(link, seen)
