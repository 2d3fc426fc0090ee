"""A weight-transfer backend for tests: vLLM's NCCL engines, their data sent by gloo, so that the way runs on CPUs.

Handshake, order of calls, threads and loading are vLLM's own; replaced are the communicator, its two loops of
broadcasts, and a synchronisation of accelerators.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar
from unittest import mock

import ray
import torch
from torch.distributed import BroadcastOptions
from vllm.distributed.utils import stateless_init_torch_distributed_process_group
from vllm.distributed.weight_transfer import WeightTransferEngineFactory, WeightTransferTrainerFactory, nccl_engine
from vllm.distributed.weight_transfer.nccl_engine import (
    NCCLTrainerInitInfo,
    NCCLTrainerWeightTransferEngine,
    NCCLWeightTransferEngine,
)
from vllm.utils.network_utils import get_open_port

from blip3o_grpo.rollout.workers.sampler import Sampler

DEADLY = "BLIP3O_TEST_DEADLY_FILE"
"""Environment variable: the sampler that finds this file deletes it and dies in the middle of a transfer."""


class Group:
    """Broadcasts from rank 0."""

    def __init__(self, info: NCCLTrainerInitInfo, rank: int):
        self.group = stateless_init_torch_distributed_process_group(
            info.master_address, info.master_port, rank, info.world_size, "gloo"
        )

    def broadcast(self, tensor: torch.Tensor) -> None:
        options = BroadcastOptions()
        options.rootRank = 0
        self.group.broadcast([tensor], options).wait()

    def destroy(self) -> None:
        self.group.shutdown()


class Receiver(NCCLWeightTransferEngine):
    """A sampler's end."""

    def init_transfer_engine(self, init_info) -> None:
        self.model_update_group = Group(init_info, init_info.rank_offset)

    def update_weights(self, update_info) -> None:
        self.receive_weights(self.parse_update_info(update_info))

    def receive_weights(self, update_info) -> None:
        for name, dtype, shape in zip(update_info.names, update_info.dtype_names, update_info.shapes, strict=True):
            weight = torch.empty(shape, dtype=getattr(torch, dtype))
            self.model_update_group.broadcast(weight)
            self.model.load_weights([(name, weight)])
            if name.endswith("layers.0.mlp.down_proj.weight"):
                self.die_if_told()

    def die_if_told(self) -> None:
        try:
            Path(os.environ[DEADLY]).unlink()  # one of the samplers only
        except FileNotFoundError:
            return
        os._exit(1)


@dataclass
class GlooInitInfo(NCCLTrainerInitInfo):
    backend: ClassVar[str] = "gloo"


class Sender(NCCLTrainerWeightTransferEngine):
    """The trainer's end."""

    @classmethod
    def trainer_init(cls, init_info, *, client, source=None):
        with mock.patch.object(nccl_engine, "open_trainer_endpoint", lambda info: Group(info, rank=0)):
            return super().trainer_init(init_info, client=client, source=source)

    def _broadcast(self, source, meta) -> None:
        group = self.model_update_group
        for _, tensor in self._checked_iter(source, meta):
            group.broadcast(tensor.contiguous())


class GlooSampler(Sampler):
    """A sampler that counts how often it fetched its weights from the object store."""

    fetched = 0

    def ready(self) -> None:
        register()
        super().ready()

    def load(self, values) -> None:
        self.fetched += 1
        super().load(values)

    def num_fetched(self) -> int:
        return self.fetched


def register() -> None:
    """Tell this process's vLLM about the backend `gloo`; may be called again."""
    if "gloo" not in WeightTransferEngineFactory._registry:
        WeightTransferEngineFactory.register_engine("gloo", Receiver)
        WeightTransferTrainerFactory.register_engine("gloo", Sender)


def init_info(path: str, num_samplers: int, largest_bytes: int) -> GlooInitInfo:
    """In place of `blip3o_grpo.rollout.weights.transfer.trainer_init_info`."""
    return GlooInitInfo(
        rank=0,
        master_address=ray.util.get_node_ip_address(),
        master_port=get_open_port(),
        world_size=1 + num_samplers,
    )
