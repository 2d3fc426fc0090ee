"""Calls of workers: submitted without waiting, and waited for without trusting that they ever end.

Ray repeats a call whose worker died, and computes again what was lost with a node. Left to do here is to ask the board,
while waiting, whether a worker hangs or will not come back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.actor import ActorHandle

from blip3o_grpo.rollout.faults.board import Published
from blip3o_grpo.rollout.faults.failures import first_cause
from blip3o_grpo.rollout.messages import GroupRequest
from blip3o_grpo.rollout.types import RolloutError

POLL_S = 1.0
"""Between two questions to the board."""


@dataclass(frozen=True)
class Call:
    """A submitted call."""

    ref: ray.ObjectRef
    stage: str
    worker: str


def worker_name(stage: str, index: int) -> str:
    """Name of a worker of the pool `sample`, `decode` or `score/NAME`."""
    pool = {"sample": "sampler", "decode": "decoder"}.get(stage) or stage.replace("score/", "reward-")
    return f"{pool}-{index}"


def submit(pools: Mapping[str, Sequence[ActorHandle]], stage: str, turn: int, method: str, *args: Any) -> Call:
    """Queue a call; a stage's workers are taken in turn, so the assignment is the same in every run."""
    index = turn % len(pools[stage])
    return Call(getattr(pools[stage][index], method).remote(*args), stage, worker_name(stage, index))


def submit_to_all(pools: Mapping[str, Sequence[ActorHandle]], method: str, *args: Any) -> list[Call]:
    """One call of every worker."""
    return [submit(pools, stage, index, method, *args) for stage in pools for index in range(len(pools[stage]))]


def result(board: Published, call: Call, requests: Sequence[GroupRequest] = ()) -> Any:
    """What the call returns.

    Raises:
        RolloutError: it failed, was lost too often, or its worker is gone; names the stage and the requests' prompts.
        ImportError, CheckpointError, ...: without requests, the worker's own error.
    """
    prompts = [request.prompt.text for request in requests]
    first_finished(board, [call], prompts)
    try:
        return ray.get(call.ref)
    except ray.exceptions.RayError as error:
        raise first_cause(error, call.stage, prompts) from error


def first_finished(board: Published, calls: Sequence[Call], prompts: Sequence[str] = ()) -> Call:
    """Wait for any of these calls; calls that hang are ended meanwhile, and Ray repeats them.

    Raises:
        RolloutError: one of the workers is gone: its process or its node died, and Ray cannot start it again.
    """
    by_ref = {call.ref: call for call in calls}
    while True:
        ready, _ = ray.wait(list(by_ref), timeout=POLL_S)
        if ready:
            return by_ref[ready[0]]
        for name, seconds in board.check([call.worker for call in calls]).items():
            stage = next(call.stage for call in calls if call.worker == name)
            about = f", prompts {', '.join(map(repr, prompts))}" if prompts else ""
            raise RolloutError(
                f"stage {stage}, worker {name}{about}: not heard of for {seconds:.0f} s (faults.timeout_s.start); "
                "Ray could not start it again: does the cluster still have the CPUs, GPUs and nodes it needs?"
            )
