"""Signals: the first asks the training to stop where nothing is lost, the second stops at once.

SIGINT, SIGTERM and SIGHUP (the terminal was closed). The driver gets the signal, training runs in Ray workers: a small
file in the run folder carries the request. Ranks see it while they wait for rollouts, which are then abandoned (a
resumed run draws the same ones), or after the optimiser step, which is finished; both end with a checkpoint. A warm
start has no workers and looks for the file after every step. Outside training there is nothing to save, so the first
signal stops at once. The exit code is 128 + signal, as a shell reports it: 129 for SIGHUP, 130 for SIGINT, 143 for
SIGTERM. A SIGHUP that `nohup` ignores stays ignored.

Python gives signals to the main thread alone. A run in another thread of a program takes none; who wants to stop it
creates the file.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import TypeVar

POLL_S = 0.5

Result = TypeVar("Result")


class RunStopped(KeyboardInterrupt):
    """A signal stopped the run; nothing is wrong with it."""

    def __init__(self, signum: int = signal.SIGINT):
        super().__init__(signal.Signals(signum).name)
        self.signum = signum

    @property
    def exit_code(self) -> int:
        """What schedulers expect of a process that a signal ended."""
        return 128 + self.signum


class StopRequested(Exception):
    """Inside a rank: all ranks abandon the step they are in."""


class StopSignals:
    """Context manager of the driver: its signals become `RunStopped` or, inside `graceful`, first a request."""

    def __init__(self) -> None:
        self.received: int | None = None
        self._request: Callable[[], None] | None = None

    def __enter__(self) -> StopSignals:
        hangup = () if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else (signal.SIGHUP,)
        main = threading.current_thread() is threading.main_thread()
        numbers = (signal.SIGINT, signal.SIGTERM, *hangup) if main else ()
        self._previous = {number: signal.signal(number, self._handle) for number in numbers}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        if isinstance(error, KeyboardInterrupt) and self.received:  # Ray raises its own in place of ours
            raise RunStopped(self.received) from None

    @contextmanager
    def graceful(self, file: Path) -> Iterator[None]:
        """Inside the block, the first signal creates `file` and lets the program go on; another program may create it.

        Raises:
            RunStopped: after the block, if there was such a request.
        """
        self._request, requested = file.touch, False
        try:
            yield
        finally:
            self._request, requested = None, file.exists()
            file.unlink(missing_ok=True)
        if self.received or requested:
            raise RunStopped(self.received or signal.SIGINT)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        first, self.received = self.received is None, number
        if not (first and self._request):
            raise RunStopped(number)
        self._request()


@contextmanager
def sigterm_as_sigint() -> Iterator[None]:
    """SIGTERM is what Ctrl-C is, for a program whose library knows what to do with that."""
    previous = signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def interruptible(call: Callable[[], Result], interrupted: Callable[[], bool] | None = None) -> Result | None:
    """Result of `call`, which runs in a thread of its own so that this one sees signals and requests.

    Args:
        call: what takes long.
        interrupted: asked twice a second; once it says so, the call is left alone and the result is None.
    """
    outcome: list[Result] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            outcome.append(call())
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(POLL_S)
        if interrupted is not None and thread.is_alive() and interrupted():
            return None
    if failure:
        raise failure[0]
    return outcome[0]
