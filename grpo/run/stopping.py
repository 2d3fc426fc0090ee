"""SIGTERM and SIGINT: the first asks the training to stop where nothing is lost, the second stops at once.

The driver gets the signal, training runs in Ray workers: a small file in the run folder carries the request. Ranks see
it while they wait for rollouts, which are then abandoned (a resumed run draws the same ones), or after the optimiser
step, which is finished; both end with a checkpoint. Outside training there is nothing to save, so the first signal
stops at once. The exit code is 128 + signal, as a shell reports it: 130 for SIGINT, 143 for SIGTERM.

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
from typing import Any, TypeVar

from transformers import TrainerCallback

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
        ours = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
        self._previous = {number: signal.signal(number, self._handle) for number in ours}
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


class StopAfterStep(TrainerCallback):
    """Ends the training after the current step, with a checkpoint, once a stop is asked for.

    Args:
        agreed: whether any rank has seen the request; all ranks ask it after every step.
    """

    def __init__(self, agreed: Callable[[], bool]):
        self.agreed = agreed

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.agreed():
            control.should_save = control.should_training_stop = True
