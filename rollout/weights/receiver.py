"""A sampler's end of vLLM's weight transfer, and its sleep while the trainer uses their GPU.

Rank 0 (`transfer.py`) calls the methods that vLLM's trainer side expects of an engine. None of them is repeated
on a sampler that Ray restarted: that one belongs to no group, says so, and fetches the newest snapshot instead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import ray
import torch

from blip3o_grpo.rollout.messages import Snapshot
from blip3o_grpo.rollout.types import RolloutError
from blip3o_grpo.rollout.workers.base import Worker

if TYPE_CHECKING:
    from vllm import LLM

    from blip3o_grpo.rollout.vllm_seams import WeightTransferInitRequest, WeightTransferUpdateRequest

SLEEP_LEVEL = 1
"""Weights wait in host memory: a sampler wakes up as it fell asleep, so evaluations may draw twice with the same."""


class NotInGroup(RolloutError):
    """A sampler was asked to take part in a transfer that it does not belong to."""


class WeightReceiver(Worker):
    """Base of workers whose vLLM engine can be filled by a transfer."""

    _engine: LLM | None = None
    _group: str | None = None
    _asleep = False

    def gpu(self) -> str | None:
        """Identity of the GPU in use; None on a CPU."""
        return gpu_id()

    def transfer_group(self) -> str | None:
        """The group this sampler belongs to; None after a restart."""
        return self._group

    @ray.method(max_task_retries=0)
    def init_weight_transfer_engine(self, request: WeightTransferInitRequest, group: str) -> None:
        """Join a group, after leaving the one before."""
        self.ready()
        if self._group is not None:
            self._engine.shutdown_weight_transfer_engine()
        self._engine.init_weight_transfer_engine(request)
        self._group = group

    @ray.method(max_task_retries=0)
    def start_weight_update(self, group: str) -> None:
        """Wake up and get ready for weights."""
        self._check_group(group)
        self.wake_up()
        self._engine.start_weight_update()

    @ray.method(max_task_retries=0)
    def update_weights(self, request: WeightTransferUpdateRequest, group: str) -> None:
        """Receive some of the weights, in the released names and shapes."""
        self._check_group(group)
        self._engine.update_weights(request)

    @ray.method(max_task_retries=0)
    def finish_weight_update(self, snapshot: Snapshot, group: str) -> None:
        """Work with the received weights from now on; they are those of the snapshot."""
        self._check_group(group)
        self._engine.finish_weight_update(str(snapshot.version))
        self._engine.reset_prefix_cache()
        self.adopt(snapshot)

    def sleep(self) -> None:
        """Give the GPU's memory back, if there is an engine that has any."""
        if self._engine is not None and not self._asleep:
            self._engine.sleep(level=SLEEP_LEVEL)
            self._asleep = True

    def wake_up(self) -> None:
        """Take the memory again; called before any work."""
        if self._asleep:
            self._engine.wake_up()
            self._asleep = False

    def _check_group(self, group: str) -> None:
        if self._group != group:
            raise NotInGroup(f"{self.name} does not belong to the weight transfer; it was restarted")


def gpu_id() -> str | None:
    """Identity of this process's current GPU, the same in every process; None without one."""
    if not torch.cuda.is_available():
        return None
    return str(torch.cuda.get_device_properties(torch.cuda.current_device()).uuid)
