"""What a worker holds, and what else is on a GPU: numbers only. `footprint.py`, which needs torch, works them out."""

from __future__ import annotations

from dataclasses import dataclass

ENGINE_SHARE = 0.9
"""Of a sampler's share of its GPU that vLLM takes (`rollout/workers/engine.py`)."""
TRANSFER_BUFFER = 2**30
"""Of a weight transfer by IPC, on the GPU that trainer and sampler share (`rollout/weights/transfer.py`)."""


@dataclass(frozen=True)
class Footprint:
    """Bytes of one worker by what they hold."""

    items: dict[str, int]
    not_counted: str
    """What comes on top."""
    passing: tuple[str, ...] = ()
    """Items that are there while the trainer trains, and not while images are drawn."""

    @property
    def total(self) -> int:
        """Of all items."""
        return sum(self.items.values())

    @property
    def lasting(self) -> int:
        """Of the items that are always there."""
        return sum(size for name, size in self.items.items() if name not in self.passing)
