"""The `device` option of every reward part that runs a torch network."""

from __future__ import annotations

import re

from blip3o_grpo.rewards.types import RewardError


def check_device(device: str) -> None:
    """Check the spelling of a device without importing torch: `cpu`, `cuda` or `cuda:N`; raises RewardError."""
    if not re.fullmatch(r"cpu|cuda(:\d+)?", device):
        raise RewardError(f"device is {device!r}; it must be 'cpu', 'cuda' or 'cuda:' and a number")


def require_device(device: str) -> None:
    """Check that torch can use a device on this machine; raises RewardError."""
    import torch

    check_device(device)
    if device == "cpu":
        return
    index = int(device.partition(":")[2] or 0)
    if index >= torch.cuda.device_count():
        raise RewardError(f"device is {device!r}, but torch {torch.__version__} sees {torch.cuda.device_count()} GPUs")
