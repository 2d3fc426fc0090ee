"""Rollouts of the next step, drawn while this step is learnt from (`rollout.max_staleness: 1`).

One step at most is ahead. Its weights are those that this step started from, so what is drawn is one version old when
it is learnt from, and the loss corrects for that. A checkpoint keeps what was drawn ahead of it, because the weights
that drew it are gone when the run resumes: it then learns from the same rollouts as a run that was never interrupted.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

from blip3o_grpo.rollout import RolloutBatch
from blip3o_grpo.rollout.batch_file import load_batch, save_batch


class Ahead:
    """At most one batch that is being drawn, or waits to be learnt from.

    Args:
        rank: of this process; every rank keeps its own groups.
    """

    def __init__(self, rank: int):
        self._file = f"ahead-{rank}.safetensors"
        self._step: int | None = None
        self._drawn: Future[RolloutBatch] = Future()

    def start(self, step: int, draw: Callable[[], RolloutBatch]) -> None:
        """Have `draw` make the rollouts of `step` in a thread of its own."""
        self._step, self._drawn = step, Future()
        threading.Thread(target=_run, args=(draw, self._drawn), daemon=True, name=f"rollouts-{step}").start()

    def holds(self, step: int) -> bool:
        """Whether the rollouts of `step` are being drawn, or are there."""
        return self._step == step

    def batch(self) -> RolloutBatch:
        """The rollouts, once they are there.

        Raises:
            RolloutError: a stage failed.
        """
        return self._drawn.result()

    def taken(self) -> None:
        """The rollouts will be learnt from now, and are ahead no longer."""
        self._step = None

    def wait(self) -> bool:
        """Until nothing is being drawn: whether there are rollouts ahead. What failed is raised by `batch`."""
        return self._step is not None and self._drawn.exception() is None

    def save(self, checkpoint: Path) -> None:
        """Keep in a checkpoint's folder what is ahead of it."""
        if self.wait():
            save_batch(checkpoint / self._file, self._drawn.result(), self._step)

    def load(self, checkpoint: Path) -> None:
        """Take up what `save` kept, if anything."""
        file = checkpoint / self._file
        if file.is_file():
            self._step, batch = load_batch(file)
            self._drawn = Future()
            self._drawn.set_result(batch)


def _run(draw: Callable[[], RolloutBatch], drawn: Future[RolloutBatch]) -> None:
    try:
        drawn.set_result(draw())
    except BaseException as error:
        drawn.set_exception(error)
