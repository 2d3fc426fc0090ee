"""What stops a run from inside the rollouts."""

from __future__ import annotations


class RolloutError(ValueError):
    """A stage failed, or handed on something that cannot be trained on. Never turned into a reward."""


class WorkerLostError(RolloutError):
    """A call was lost with its worker, which died or hung, more often than `faults.retries` allows."""
