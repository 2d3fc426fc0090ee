"""What all workers have in common: a name, busy seconds, peak memory, values fetched from snapshots, and calls that the
board knows of."""

from __future__ import annotations

import faulthandler
import resource
import sys
import threading
import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import ray

from blip3o_grpo.rollout.messages import BOARD, GroupRequest, Snapshot, Work, is_writable, writable
from blip3o_grpo.rollout.ray_seams import is_sigterm
from blip3o_grpo.rollout.types import WorkerLostError
from blip3o_grpo.rollout.workers.quick_imports import quick_imports

MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024  # bytes
STDERR = 2
"""Where stacks go: the process's own, whatever a library put in the place of `sys.stderr`; Ray makes a log of it."""
STACK_BEFORE_S = 10.0
"""How long before the end of a stage's limit, at most; a tenth of short limits."""


class CallEndedError(RuntimeError):
    """Code that a worker called asked its process to end, or raised something else that is no `Exception`."""


@contextmanager
def contained() -> Iterator[None]:
    """Code of others may end its call, not the worker.

    Raises:
        CallEndedError: in place of `SystemExit`, `KeyboardInterrupt`, `asyncio.CancelledError` and the like.
    """
    try:
        yield
    except Exception:
        raise
    except BaseException as error:
        if is_sigterm(error):
            raise
        raise CallEndedError(f"{type(error).__name__}: {error}".rstrip(": ")) from error


def _sendable(error: Exception) -> Exception:
    """The error in words that Ray can send: it cannot tell one whose text or cause has half of a surrogate pair."""
    return error if is_writable(str(error)) else CallEndedError(writable(f"{type(error).__name__}: {error}"))


class Worker(ABC):
    """Base of the actors. Models load on first use, so their own errors reach the caller as they are.

    Args:
        name: of the worker, which is its actor's, or `NAMESPACE/NAME`: the board in that Ray namespace is told of every
            call. (Not as a handle: Ray does not restart an actor whose constructor's arguments are lost.)
    """

    def __init__(self, name: str):
        namespace, _, self.name = name.rpartition("/")
        self._board = ray.get_actor(BOARD, namespace) if namespace else None
        self._stage: str | None = None
        self._limits_s: Mapping[str, float | None] = {}
        if self._board:
            self._board.born.remote(self.name)
        self.busy_seconds = 0.0
        self.policy_version: int | None = None
        self._snapshot_id: str | None = None
        self._values_id: str | None = None
        self._started = False

    @abstractmethod
    def start(self) -> None:
        """Load the models, or raise what stops them from loading. Called once."""

    @abstractmethod
    def load(self, values: Any) -> None:
        """Take over the values of a snapshot."""

    def ready(self) -> None:
        """Start unless that was done."""
        if not self._started:
            with self.busy("start"), quick_imports():  # it imports most of what the worker needs
                self.start()
            self._started = True

    def use(self, snapshot: Snapshot) -> int:
        """Fetch a snapshot's values unless they are the ones in use; returns the version now in use."""
        if snapshot.id != self._snapshot_id:
            with self.busy("sync"):
                self.ready()
                self.fetch(snapshot)
            self.adopt(snapshot)
        return self.policy_version

    def fetch(self, snapshot: Snapshot) -> None:
        """Load those values of a snapshot that are not in use."""
        if snapshot.boxed[0].hex() != self._values_id:
            self.load(ray.get(snapshot.boxed[0]))

    def adopt(self, snapshot: Snapshot) -> None:
        """Take the values in use for this snapshot's."""
        self._snapshot_id = snapshot.id
        self._values_id = snapshot.boxed[0].hex()
        self.policy_version = snapshot.version

    @contextmanager
    def busy(self, stage: str, requests: Sequence[GroupRequest] = ()) -> Iterator[None]:
        """Tell the board what this call does, so that a hang is noticed and an attempt counted; at most once a call.

        Within another block: go over to another stage's limit and back. A block that comes near its limit leaves the
        stacks of all threads in the worker's log: after that, its process is gone.

        Whatever code inside raises ends its call and not the worker, also `SystemExit`, for which Ray would end the
        process (with code 0: for good). A SIGTERM does end it, and the board, not told that the call is over, counts
        an attempt as for every other death.

        Raises:
            WorkerLostError: the call was lost too often to be tried again.
            CallEndedError: in place of what is no `Exception`.
        """
        outer, call = self._stage, ""
        if self._board and outer is None:
            call = self._begin(stage, requests)
        elif self._board:
            self._board.enters.remote(self.name, stage)
        self._stage = stage
        self._leave_stack(stage)
        try:
            with contained():
                yield
        except Exception as error:
            self._leave(outer, call)
            if outer is None and not is_writable("".join(traceback.format_exception(error))):
                raise _sendable(error) from None
            raise
        self._leave(outer, call)

    def _leave(self, outer: str | None, call: str) -> None:
        """A block of `busy` is over, and its process goes on."""
        self._stage = outer
        self._leave_stack(outer)
        if self._board and outer is None:
            self._board.ends.remote(self.name, call)
        elif self._board:
            self._board.enters.remote(self.name, outer)

    def _begin(self, stage: str, requests: Sequence[GroupRequest]) -> str:
        call = ray.get_runtime_context().get_task_id()  # the same in all attempts
        verdict = ray.get(self._board.begins.remote(self.name, call, stage))
        if verdict.refusal:
            about = f", prompts {', '.join(repr(request.prompt.text) for request in requests)}" if requests else ""
            raise WorkerLostError(f"stage {stage}, worker {self.name}{about}: {verdict.refusal}")
        self._limits_s = verdict.limits_s
        time.sleep(verdict.wait_s)
        return call

    def _leave_stack(self, stage: str | None) -> None:
        """Write the stacks of all threads when this stage has nearly used up its time; None: not any more."""
        faulthandler.cancel_dump_traceback_later()
        limit = self._limits_s.get(stage) if stage else None
        if limit is not None:
            due = min(limit - min(STACK_BEFORE_S, limit / 10), threading.TIMEOUT_MAX)  # more would be an OverflowError
            faulthandler.dump_traceback_later(due, file=STDERR)

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Count the block's wall seconds as busy."""
        started = time.perf_counter()
        yield
        self.last_seconds = time.perf_counter() - started
        self.busy_seconds += self.last_seconds

    def work(self) -> Work:
        """Account of the last timed block."""
        return Work(self.name, self.last_seconds, self.policy_version)

    def stats(self) -> dict[str, Any]:
        """Name, busy seconds since the start, peak resident memory in GB (10^9 bytes), and the version in use."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * MAXRSS_UNIT / 1e9
        return {
            "name": self.name,
            "busy_seconds": self.busy_seconds,
            "peak_memory_gb": peak,
            "policy_version": self.policy_version,
        }
