"""What all workers have in common: a name, busy seconds, peak memory, and values fetched from snapshots."""

from __future__ import annotations

import resource
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray

from rollout.messages import Snapshot, Work

MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024  # bytes


class Worker(ABC):
    """Base of the actors. Models load on first use, so their own errors reach the caller as they are."""

    def __init__(self, name: str):
        self.name = name
        self.busy_seconds = 0.0
        self.policy_version: int | None = None
        self._snapshot_id: str | None = None

    @abstractmethod
    def ready(self) -> None:
        """Load the models now, or raise what stops them from loading."""

    @abstractmethod
    def load(self, values: Any) -> None:
        """Take over the values of a snapshot."""

    def use(self, snapshot: Snapshot) -> int:
        """Fetch a snapshot's values unless they are the ones in use; returns the version now in use."""
        if snapshot.id != self._snapshot_id:
            self.load(ray.get(snapshot.boxed[0]))
            self.adopt(snapshot)
        return self.policy_version

    def adopt(self, snapshot: Snapshot) -> None:
        """Take the values in use for this snapshot's."""
        self._snapshot_id = snapshot.id
        self.policy_version = snapshot.version

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
