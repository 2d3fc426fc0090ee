"""The options `device` and `dtype` of every reward part that runs a torch network."""

from __future__ import annotations

import re

from blip3o_grpo.rewards.types import RewardError

DTYPES = ("float32", "bfloat16")
"""What networks may compute in; float16 overflows in some of them."""


def check_dtype(dtype: str) -> None:
    """Check the name of a floating-point type without importing torch; raises RewardError."""
    if dtype not in DTYPES:
        raise RewardError(f"dtype is {dtype!r}; it must be {' or '.join(map(repr, DTYPES))}")


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
