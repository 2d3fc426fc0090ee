"""Which call every worker is busy with, and how often each call has been lost: bookkeeping without Ray or a clock.

A worker says when it begins a call, so time in its queue does not count, and a death is charged to the call that was
running and not to those behind it. Ray repeats lost calls without end; the bound is kept here, when one begins again.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from blip3o_grpo.configs import FaultsSection
from blip3o_grpo.rollout.messages import Verdict

DIED = "its process died"
HUNG = "no answer within"
STACK = "; where it hung is in Ray's log of the worker, worker-*.err (see failures/ray-logs in the run folder)"


@dataclass
class _Busy:
    call: str
    stage: str
    since: float


class CallLedger:
    """Calls in progress, by worker, and the losses of each call.

    Args:
        faults: limits.
        forgetful: the ledger replaces one that was lost, so what workers are doing is not known at first.

    Times are seconds on any steady clock.
    """

    def __init__(self, faults: FaultsSection, *, forgetful: bool = False):
        self._faults = faults
        self._forgetful = forgetful
        self._busy: dict[str, _Busy] = {}
        self._born: set[str] = set()
        self._heard: dict[str, float] = {}
        self._losses: dict[str, list[str]] = {}
        self._last: dict[str, tuple[str, list[str]]] = {}
        self._counts: Counter[str] = Counter()

    def born(self, worker: str, now: float) -> None:
        """A worker has a new process; what an earlier one was doing is lost."""
        self._counts["restarts"] += worker in self._born or self._forgetful
        self._born.add(worker)
        self._lose(worker, DIED)
        self._heard[worker] = now

    def begins(self, worker: str, call: str, stage: str, now: float) -> Verdict:
        """A worker begins a call, for the first time or again."""
        self._lose(worker, DIED)
        self._heard[worker] = now
        last, earlier = self._last.pop(worker, ("", []))
        if call == last:  # done, and begun again: its process died before anybody had the result
            self._losses[call] = [*earlier, DIED]
        losses = self._losses.get(call, [])
        if len(losses) > self._faults.retries:
            each = ", then ".join(losses)
            stack = STACK if any(loss.startswith(HUNG) for loss in losses) else ""
            return Verdict(
                refusal=f"{len(losses)} attempts failed: {each} (faults.retries={self._faults.retries}){stack}"
            )
        wait = self._faults.backoff_s * 2 ** (len(losses) - 1) if losses else 0.0
        self._counts["retries"] += bool(losses)
        self._busy[worker] = _Busy(call, stage, now + wait)
        return Verdict(wait, limits_s=self._faults.timeout_s.model_dump())

    def enters(self, worker: str, stage: str, now: float) -> None:
        """Within its call, a worker goes over to work with another limit (it loads models or weights, or is done)."""
        if worker in self._busy:
            self._busy[worker].stage, self._busy[worker].since = stage, now

    def ends(self, worker: str, call: str, now: float) -> None:
        """A worker has done a call, or raised an error of its own, which is never repeated."""
        self._last[worker] = (call, self._losses.pop(call, []))
        self._heard[worker] = now
        if worker in self._busy and self._busy[worker].call == call:
            del self._busy[worker]

    def overdue(self, now: float) -> list[str]:
        """Workers whose call takes longer than its limit, unless their process died; find out, and `lose` it."""
        return [
            worker
            for worker, busy in self._busy.items()
            if (limit := self._limit(busy.stage)) is not None and now - busy.since > limit
        ]

    def lose(self, worker: str, now: float, *, hung: bool) -> None:
        """What a worker was doing is lost: it hung and is replaced now, or it turned out to have died."""
        stage = self._busy[worker].stage
        self._lose(worker, f"{HUNG} {self._limit(stage):g} s ({stage})" if hung else DIED)
        self._heard[worker] = now
        self._counts["timeouts"] += hung

    def gone_for(self, worker: str, now: float) -> float | None:
        """Seconds since a worker that somebody waits for was last heard of, if that is more than the limit `start`."""
        if worker not in self._heard:
            self._heard[worker] = now
            if self._forgetful:  # it may be in the middle of anything
                self._busy[worker] = _Busy("", self._longest(), now)
        start = self._faults.timeout_s.start
        silent = now - self._heard[worker]
        return silent if worker not in self._busy and start is not None and silent > start else None

    def take_counts(self) -> dict[str, int]:
        """`retries`, `restarts` and `timeouts` since the last time this was asked."""
        counts = {name: self._counts[name] for name in ("retries", "restarts", "timeouts")}
        self._counts.clear()
        return counts

    def _lose(self, worker: str, loss: str) -> None:
        busy = self._busy.pop(worker, None)
        if busy is not None:
            self._losses.setdefault(busy.call, []).append(loss)

    def _limit(self, stage: str) -> float | None:
        return getattr(self._faults.timeout_s, stage)

    def _longest(self) -> str:
        """The stage with the highest limit."""
        limits = self._faults.timeout_s.model_dump()
        return max(limits, key=lambda stage: float("inf") if limits[stage] is None else limits[stage])
