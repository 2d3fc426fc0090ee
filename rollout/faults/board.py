"""The board: one small actor per run that knows the newest snapshots, and which call every worker is busy with.

It may die like any other actor. Ray starts it again, empty; whoever published a snapshot still holds it and puts it
back (`Published`), and workers announce their next calls anew.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import ray
from ray.actor import ActorHandle

from blip3o_grpo.configs import FaultsSection
from blip3o_grpo.rollout.faults.ledger import CallLedger
from blip3o_grpo.rollout.messages import Snapshot, Verdict
from blip3o_grpo.rollout.ray_seams import is_alive


class Board:
    """Actor: snapshots by name, and the ledger of calls. Every method returns at once.

    Args:
        namespace: of the run's actors.
        faults: limits of the ledger.
    """

    def __init__(self, namespace: str = "", faults: FaultsSection | None = None):
        self._namespace = namespace
        self._restarted = bool(ray.get_runtime_context().was_current_actor_reconstructed)
        self._snapshots: dict[str, Snapshot] = {}
        self._ledger = CallLedger(faults or FaultsSection(), forgetful=self._restarted)

    def publish(self, name: str, snapshot: Snapshot) -> None:
        """Make a snapshot the newest under its name."""
        self._snapshots[name] = snapshot

    def newest(self) -> tuple[dict[str, Snapshot], bool]:
        """The newest snapshots, and whether this board replaces one that died, so that some may be missing."""
        return self._snapshots, self._restarted

    def born(self, worker: str) -> None:
        """See `CallLedger`, here and below."""
        self._ledger.born(worker, time.monotonic())

    def begins(self, worker: str, call: str, stage: str) -> Verdict:
        return self._ledger.begins(worker, call, stage, time.monotonic())

    def enters(self, worker: str, stage: str) -> None:
        self._ledger.enters(worker, stage, time.monotonic())

    def ends(self, worker: str, call: str) -> None:
        self._ledger.ends(worker, call, time.monotonic())

    def check(self, awaited: Sequence[str]) -> dict[str, float]:
        """Replace every worker whose call takes too long; those of the awaited ones that seem gone for good, and the
        seconds since they were heard of."""
        for worker in self._ledger.overdue(time.monotonic()):
            with suppress(ValueError):  # no such actor: the run is being closed
                self._replace(worker, ray.get_actor(worker, namespace=self._namespace))
        now = time.monotonic()
        silent = {worker: self._ledger.gone_for(worker, now) for worker in awaited}
        return {worker: seconds for worker, seconds in silent.items() if seconds is not None}

    def _replace(self, worker: str, handle: ActorHandle) -> None:
        alive = is_alive(handle)  # else it died, and Ray is starting it again
        self._ledger.lose(worker, time.monotonic(), hung=alive)
        if alive:
            ray.kill(handle, no_restart=False)

    def take_counts(self) -> dict[str, int]:
        return self._ledger.take_counts()


class Published:
    """Snapshots as one process sees them: those on the board, and those it put there itself, which it can repeat.

    Copies in other processes know what had been published when they were made.
    """

    def __init__(self, board: ActorHandle):
        self._board = board
        self._own: dict[str, Snapshot] = {}

    def publish(self, name: str, version: int, *values: Any) -> Snapshot:
        """Put values into the object store and name them on the board; references are named as they are."""
        boxed = tuple(value if isinstance(value, ray.ObjectRef) else ray.put(value) for value in values)
        snapshot = Snapshot(version, boxed)
        ray.get(self._board.publish.remote(name, snapshot))
        self._own[name] = snapshot
        return snapshot

    def own(self, name: str) -> Snapshot:
        """The one that this process published last."""
        return self._own[name]

    def release(self, name: str) -> None:
        """Hold a snapshot no longer: another process publishes newer ones from now on."""
        self._own.pop(name, None)

    def newest(self) -> tuple[dict[str, Snapshot], bool]:
        """As the board's, after putting back what a board that died had been given by this process."""
        snapshots, restarted = ray.get(self._board.newest.remote())
        lost = {name: snapshot for name, snapshot in self._own.items() if name not in snapshots}
        for name, snapshot in lost.items():
            ray.get(self._board.publish.remote(name, snapshot))
        return snapshots | lost, restarted

    def check(self, awaited: Sequence[str]) -> dict[str, float]:
        """See `Board.check`; whoever waits also puts back what others may need from a board that died."""
        self.newest()
        return ray.get(self._board.check.remote(awaited))
