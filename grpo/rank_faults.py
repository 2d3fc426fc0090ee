"""What becomes of trainer ranks that fail: Ray Train's controller calls this, in a process that needs nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ray.train import UserCallback

from blip3o_grpo.errors import WorkerDiedError, last_line, user_error

if TYPE_CHECKING:
    from ray.util.queue import Queue


class RankFaults(UserCallback):
    """In Ray Train's controller: ranks that died are started again, errors meant for the user stop the run at once.

    Args:
        queue: to the driver's terminal.
    """

    def __init__(self, queue: Queue):
        self.queue = queue

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Raise the user's error, which the controller does not retry; announce anything else."""
        for error in worker_exceptions.values():
            ours = user_error(error)
            if ours is not None and not isinstance(ours, WorkerDiedError):
                raise ours
        ranks = ", ".join(str(rank) for rank in sorted(worker_exceptions))
        cause = last_line(next(iter(worker_exceptions.values())))
        self.queue.put({"notice": f"trainer rank {ranks} failed ({cause}); restarting from the newest checkpoint"})
