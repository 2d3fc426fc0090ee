"""What a warm start begins with, what it returns, and how it fails; without torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from blip3o_grpo.configs import WarmstartConfig
from blip3o_grpo.run.folder import RunFolder
from blip3o_grpo.warmstart.captions import CaptionedPicture


class WarmstartError(ValueError):
    """A warm start that cannot go on: says at which step and why."""


@dataclass(frozen=True)
class CheckedWarmstart:
    """A configuration whose folder, captions and pictures were found usable."""

    config: WarmstartConfig
    folder: RunFolder
    pictures: list[CaptionedPicture]
    content: str
    """`digest_pictures` of the pictures."""


@dataclass(frozen=True)
class WarmstartResult:
    """A finished warm start."""

    run_dir: Path
    policy: Path
    """Its policy, in the released layout."""
    steps: int
    """Optimiser steps of the whole run."""
    losses: dict[str, float | None]
    """Every loss at the last step that had it."""
