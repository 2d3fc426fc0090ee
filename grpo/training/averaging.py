"""Exponential moving average of the weights that learn, sharded as they are.

Every rank averages what it holds: everything with DDP, its shards with FSDP2. The decay warms up as (1 + n) / (10 + n)
over steps n, as in diffusers and TensorFlow, so that a short run's average is not its starting policy.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn
from transformers import TrainerCallback

FILE = "averaged.safetensors"


class AveragedWeights(TrainerCallback):
    """Keeps the average of a model's trainable parameters while it is trained.

    Args:
        decay: share of the old average that a step keeps, after the warm-up.
        checkpoints: folder of `checkpoint-N` folders; a resumed run takes its average from there.
    """

    def __init__(self, decay: float, checkpoints: Path):
        self.decay = decay
        self.checkpoints = checkpoints
        self.parameters: dict[str, torch.Tensor] = {}
        self.averages: dict[str, torch.Tensor] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, model: torch.nn.Module, **_: Any) -> None:
        """Start from the weights as they are, or from the checkpoint the run resumes from."""
        self.parameters = {name: value for name, value in model.named_parameters() if value.requires_grad}
        self.averages = {name: local(value).detach().clone() for name, value in self.parameters.items()}
        if state.global_step:
            saved = load_file(self.checkpoints / f"checkpoint-{state.global_step}" / FILE)
            for name, average in self.averages.items():
                average.copy_(shard_like(saved[name], self.parameters[name]))

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Take the new weights into the average."""
        decay = min(self.decay, (1 + state.global_step) / (10 + state.global_step))
        new = [local(value).detach() for value in self.parameters.values()]
        get_ema_multi_avg_fn(decay)(list(self.averages.values()), new, None)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model has the averaged weights inside the block and its own again after it."""
        own = {name: local(value).detach().clone() for name, value in self.parameters.items()}
        self._assign(self.averages)
        try:
            yield
        finally:
            self._assign(own)

    def full(self) -> dict[str, torch.Tensor]:
        """Whole averaged tensors by parameter name, on the CPU; all ranks must call it."""
        return {name: gather_like(average, self.parameters[name]) for name, average in self.averages.items()}

    def _assign(self, values: dict[str, torch.Tensor]) -> None:
        for name, parameter in self.parameters.items():
            local(parameter).detach().copy_(values[name])


def local(tensor: torch.Tensor) -> torch.Tensor:
    """This rank's part of a parameter, sharing its memory."""
    return tensor.detach().to_local() if isinstance(tensor, DTensor) else tensor.detach()


def shard_like(full: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
    """This rank's part of a whole tensor, sharded as the parameter is."""
    if not isinstance(parameter, DTensor):
        return full
    return distribute_tensor(full.to(parameter.device), parameter.device_mesh, parameter.placements).to_local()


def gather_like(part: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
    """The whole tensor, on the CPU, of parts that are sharded as the parameter is; all ranks must call it."""
    if isinstance(parameter, DTensor):
        part = DTensor.from_local(
            part,
            parameter.device_mesh,
            parameter.placements,
            run_check=False,
            shape=parameter.shape,
            stride=parameter.stride(),
        ).full_tensor()
    return part.cpu().contiguous()
