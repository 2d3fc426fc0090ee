"""A reference policy that follows the one that learns (TR-DPO, arXiv 2404.09656), sharded as it is.

Every so many optimiser steps: reference = alpha * policy + (1 - alpha) * reference. TRL's callback does the same and
keeps nothing, so that a resumed run would start again from the first reference; here a checkpoint holds it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch.distributed.fsdp import FSDPModule
from transformers import TrainerCallback

from blip3o_grpo.training.averaging import gather_like, local, shard_like

FILE = "reference.safetensors"


class MovingReference(TrainerCallback):
    """Moves the reference after the steps that are due.

    Args:
        reference: the frozen policy, prepared for this rank.
        alpha: share of the policy that learns.
        every_steps: optimiser steps between two moves.
        checkpoints: folder of `checkpoint-N` folders; a resumed run takes its reference from there.
    """

    def __init__(self, reference: torch.nn.Module, alpha: float, every_steps: int, checkpoints: Path):
        self.reference, self.alpha, self.every_steps, self.checkpoints = reference, alpha, every_steps, checkpoints

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Go on from the checkpoint the run resumes from."""
        if state.global_step:
            saved = load_file(self.checkpoints / f"checkpoint-{state.global_step}" / FILE)
            for name, value in self.reference.named_parameters():
                local(value).copy_(shard_like(saved[name], value))

    def _shard(self) -> None:
        """Let go of what FSDP2 holds whole after a forward pass that no backward pass follows."""
        for module in self.reference.modules():
            if isinstance(module, FSDPModule):
                module.reshard()

    def on_step_end(self, args: Any, state: Any, control: Any, model: torch.nn.Module, **_: Any) -> None:
        """Take the step's weights into the reference, if it is due."""
        if state.global_step % self.every_steps:
            return
        self._shard()
        for value, new in zip(self.reference.parameters(), model.parameters(), strict=True):
            local(value).lerp_(local(new).to(value.dtype), self.alpha)

    def full(self) -> dict[str, torch.Tensor]:
        """Whole tensors by parameter name, on the CPU; all ranks must call it."""
        self._shard()
        return {name: gather_like(local(value), value) for name, value in self.reference.named_parameters()}
