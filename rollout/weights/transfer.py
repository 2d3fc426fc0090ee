"""Trainer rank 0's end of vLLM's weight transfer: weights go from its GPU straight into the samplers' engines.

vLLM's engines do the work: NCCL broadcasts in packed chunks, or CUDA IPC handles of one packed buffer. vLLM's own
client for Ray treats its actors as replicas of one engine; samplers are engines of their own, so each gets a rank here.
Ranks other than 0 have no part in it: sharded weights are already whole when they come here, and several ranks never
share GPUs with samplers, so IPC has one rank only.

The same weights lie in the object store under the same snapshot, because decoders read them there. A sampler that
died, before or during a transfer, therefore needs nothing from here: it fetches the snapshot as soon as it is back,
and the next transfer is made with a new group. Samplers that wait in a broken transfer cannot be called back; they are
restarted as well.

Importing this module imports vLLM; the driver does not.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import ray
import torch
from ray.actor import ActorHandle
from ray.exceptions import RayActorError

from blip3o_grpo.rollout.messages import Snapshot
from blip3o_grpo.rollout.types import RolloutError
from blip3o_grpo.rollout.vllm_seams import (
    DEFAULT_PACKED_BUFFER_SIZE_BYTES,
    IPCTrainerInitInfo,
    NCCLTrainerInitInfo,
    ParamMeta,
    TrainerInitInfo,
    TrainerWeightTransferEngine,
    WeightSource,
    WeightTransferInitRequest,
    WeightTransferTrainerFactory,
    WeightTransferUpdateRequest,
    get_open_port,
)
from blip3o_grpo.rollout.weights.receiver import NotInGroup, gpu_id

ANSWER_S = 60.0
"""How long a sampler may take to say what became of it; one that is stuck in a broken transfer never does."""
MAX_FAILURES = 3
"""Transfers in which a sampler died; after so many, this process leaves all weights to the object store."""
log = logging.getLogger(__name__)


class WeightTransfer:
    """The transfer to a run's samplers; nothing is connected before the first `send`.

    Args:
        path: `nccl` or `ipc`; vLLM's name of the backend, as in the samplers' engines.
        samplers: actors with the methods of `WeightReceiver`.
        dtype: of the samplers' weights; all are cast before they travel.
    """

    def __init__(self, path: str, samplers: Sequence[ActorHandle], dtype: torch.dtype):
        self._path = path
        self._samplers = tuple(samplers)
        self._source = CurrentWeights(dtype)
        self._client: SamplerClient | None = None
        self._engine: TrainerWeightTransferEngine | None = None
        self._failures = 0

    def send(self, weights: Mapping[str, torch.Tensor], snapshot: Snapshot) -> bool:
        """Put weights into all samplers, which then hold `snapshot`; False: a sampler died, now or often, fetch it.

        Args:
            weights: whole tensors in the released names, on any device.
            snapshot: the same weights in the object store.

        Raises:
            RolloutError: the GPUs do not fit the way of transfer.
            RuntimeError, ...: what vLLM, NCCL or a living sampler raised.
        """
        if self._failures == MAX_FAILURES:
            return False
        self._source.weights = weights
        if torch.cuda.is_available():
            torch.cuda.synchronize()  # vLLM packs on streams of its own, which wait for no kernel of ours
        if self._path == "ipc":
            torch.cuda.empty_cache()  # what training left behind is the memory the samplers wake up in
        try:
            if not self._is_connected():
                self._connect()
            self._client.snapshot = snapshot
            self._engine.send_weights()
        except Exception as error:
            if self._client is None or not self._client.has_lost_a_sampler(error):
                raise
            self._failures += 1
            again = "from now on" if self._failures == MAX_FAILURES else "this time"
            log.warning("a sampler died in a weight transfer; all of them read the object store %s: %s", again, error)
            self._restart_members()
            return False
        finally:
            self._source.weights = {}
        return True

    def _is_connected(self) -> bool:
        if self._client is None:
            return False
        groups = ray.get([sampler.transfer_group.remote() for sampler in self._samplers])
        return all(group == self._client.group for group in groups)

    def _connect(self) -> None:
        check_gpus(self._path, gpu_id(), ray.get([sampler.gpu.remote() for sampler in self._samplers]))
        self._close()
        self._client = SamplerClient(self._samplers, on_failure=self._close)
        init_info = trainer_init_info(self._path, len(self._samplers), self._source.largest_bytes())
        self._engine = WeightTransferTrainerFactory.trainer_init(init_info, client=self._client, source=self._source)

    def _close(self) -> None:
        """End this side's part of the group, also while it waits for a sampler that is gone."""
        if self._engine is not None:
            self._engine.shutdown()

    def _restart_members(self) -> None:
        """Leave the group, and have Ray restart the samplers that still belong to it."""
        self._close()
        asked = {sampler.transfer_group.remote(): sampler for sampler in self._samplers}
        answered, stuck = ray.wait(list(asked), num_returns=len(asked), timeout=ANSWER_S)
        for ref in (*stuck, *(ref for ref in answered if _result(ref) == self._client.group)):
            ray.kill(asked[ref], no_restart=False)
        self._client = self._engine = None


class CurrentWeights(WeightSource):
    """vLLM's view of the weights to send: set anew for every transfer, cast one at a time."""

    def __init__(self, dtype: torch.dtype):
        self.dtype = dtype
        self.weights: Mapping[str, torch.Tensor] = {}

    def metadata(self) -> list[ParamMeta]:
        """Name, dtype and shape of every tensor, in the order in which they travel."""
        return [ParamMeta(name, self.dtype, tuple(tensor.shape)) for name, tensor in self.weights.items()]

    def __iter__(self) -> Iterator[tuple[str, torch.Tensor]]:
        device = torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else "cpu"
        for name, tensor in self.weights.items():
            yield name, tensor.detach().to(device, self.dtype)

    def largest_bytes(self) -> int:
        """Of one tensor."""
        return max(tensor.numel() for tensor in self.weights.values()) * self.dtype.itemsize


class SamplerClient:
    """vLLM's `VLLMWeightSyncClient` for samplers, each an engine of its own.

    Args:
        samplers: actors with the methods of `WeightReceiver`.
        on_failure: called in vLLM's thread when a sampler cannot receive, while this process may wait for it.
    """

    def __init__(self, samplers: Sequence[ActorHandle], on_failure: Callable[[], None]):
        self.group = uuid.uuid4().hex
        self.snapshot: Snapshot | None = None
        self._samplers = samplers
        self._on_failure = on_failure
        self._refs: list[ray.ObjectRef] = []

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        """Have every sampler join; those with a rank in the group get successive ones."""
        first = init_info.get("rank_offset")
        ranks = [{} if first is None else {"rank_offset": first + index} for index in range(len(self._samplers))]
        requests = [WeightTransferInitRequest(init_info | rank) for rank in ranks]
        self._call("init_weight_transfer_engine", requests)

    def start_weight_update(self) -> None:
        """Announce weights."""
        self._call("start_weight_update")

    def update_weights(self, update_info: dict[str, Any]) -> None:
        """Have every sampler receive; returns when all have."""
        try:
            self._call("update_weights", [WeightTransferUpdateRequest(update_info)] * len(self._samplers))
        except Exception:
            self._on_failure()
            raise

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        """Make the weights those of `snapshot`."""
        self._call("finish_weight_update", [self.snapshot] * len(self._samplers))

    def has_lost_a_sampler(self, error: Exception) -> bool:
        """Whether a transfer failed because a sampler died, and not for a reason that would come again."""
        if isinstance(error, RayActorError | NotInGroup):
            return True
        ready, _ = ray.wait(self._refs, num_returns=len(self._refs), timeout=ANSWER_S) if self._refs else ([], [])
        return any(isinstance(_result(ref), RayActorError | NotInGroup) for ref in ready)

    def _call(self, method: str, arguments: Sequence[Any] | None = None) -> None:
        each = [()] * len(self._samplers) if arguments is None else [(argument,) for argument in arguments]
        self._refs = [
            getattr(sampler, method).remote(*own, self.group) for sampler, own in zip(self._samplers, each, strict=True)
        ]
        ray.get(self._refs)


def trainer_init_info(path: str, num_samplers: int, largest_bytes: int) -> TrainerInitInfo:
    """vLLM's description of the transfer; chunks hold at least the largest tensor."""
    chunk = max(DEFAULT_PACKED_BUFFER_SIZE_BYTES, largest_bytes)
    if path == "ipc":
        return IPCTrainerInitInfo(rank=0, packed=True, packed_buffer_size_bytes=chunk)
    return NCCLTrainerInitInfo(
        rank=0,
        master_address=ray.util.get_node_ip_address(),
        master_port=get_open_port(),
        world_size=1 + num_samplers,
        packed_buffer_size_bytes=chunk,
    )


def check_gpus(path: str, trainer: str | None, samplers: Sequence[str | None]) -> None:
    """Refuse GPUs, as Ray really gave them out, that the way of transfer cannot join.

    Raises:
        RolloutError: naming the setting that helps.
    """
    problem = None
    if path == "ipc" and set(samplers) != {trainer}:
        problem = "a sampler is on another GPU than the trainer"
    if path == "nccl" and len({trainer, *samplers}) <= len(samplers):
        problem = "two of trainer and samplers are on the same GPU"
    if problem:
        raise RolloutError(
            f"weight sync by {path}: {problem} (trainer {trainer}, samplers {', '.join(map(str, samplers))}); "
            "set cluster.weight_sync=object_store"
        )


def _result(ref: ray.ObjectRef) -> Any:
    """What a finished call returned or raised."""
    try:
        return ray.get(ref)
    except Exception as error:
        return error
