"""Carries weights from the trainer to samplers and decoders, and reward state to reward workers.

The newest values lie once in Ray's object store; the board actor (`board.py`) knows their references. Every task names
the snapshot it needs, so a worker that Ray restarted fetches its weights before it works, and nothing has to notice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch

POLICY = "policy"


def pack_weights(state_dict: Mapping[str, torch.Tensor], dtype: torch.dtype) -> dict[str, tuple[np.ndarray, str]]:
    """Tensors as raw bytes and a dtype name: Ray shares numpy arrays between processes without copying them.

    Args:
        state_dict: the trainer's weights, often in float32.
        dtype: in which samplers and decoders compute; they would round on arrival what is not rounded here.
    """
    return {name: (_raw(tensor.detach().to(dtype)), str(dtype)) for name, tensor in state_dict.items()}


def _raw(tensor: torch.Tensor) -> np.ndarray:
    """`[..., itemsize]` uint8."""
    return tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().reshape(*tensor.shape, -1)


def unpack_weights(packed: Mapping[str, tuple[np.ndarray, str]]) -> Iterator[tuple[str, torch.Tensor]]:
    """Inverse of `pack_weights`, one tensor at a time; each is a copy, because the shared arrays are read-only."""
    for name, (array, dtype) in packed.items():
        flat = torch.from_numpy(array.reshape(-1).copy()).view(getattr(torch, dtype.removeprefix("torch.")))
        yield name, flat.reshape(array.shape[:-1])
