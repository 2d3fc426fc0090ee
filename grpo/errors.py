"""Finds, inside what Ray raises, the error that our own code meant for the user."""

from __future__ import annotations

from collections.abc import Iterator

PACKAGES = ("configs", "policies", "rewards", "rollout", "grpo")


def user_error(error: BaseException) -> ValueError | None:
    """The first error in the chain that one of our packages defined for users, or None if it is a bug or a crash.

    Ray wraps a worker's exception in its own classes (`cause`, `worker_failures`); those are opened.
    """
    for link in _chain(error):
        if isinstance(link, ValueError) and type(link).__module__.split(".")[0] in PACKAGES:
            return link
    return None


def _chain(error: BaseException | None, seen: frozenset[int] = frozenset()) -> Iterator[BaseException]:
    if error is None or id(error) in seen:
        return
    seen |= {id(error)}
    yield error
    inner = [*getattr(error, "worker_failures", {}).values(), getattr(error, "controller_failure", None)]
    for link in (*inner, getattr(error, "cause", None), getattr(error, "_base_exc", None), error.__cause__):
        if isinstance(link, BaseException):
            yield from _chain(link, seen)
