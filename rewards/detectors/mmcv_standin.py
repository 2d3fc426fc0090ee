"""Lets mmdet import beside mmcv-lite, which has mmcv's Python code but not its compiled operators.

mmdet imports every wrapper of `mmcv._ext` at once, although Mask2Former on a CPU calls none of them: its deformable
attention has a pure PyTorch path. Full mmcv is left untouched.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from blip3o_grpo.rewards.types import RewardError

_NAME = "mmcv._ext"


class _StandIn(ModuleType):
    """Has every operator mmcv asks for; each fails only when it is called."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("__"):  # what Python itself asks modules for is really absent
            raise AttributeError(name)

        def missing(*args: Any, **options: Any) -> None:
            raise RewardError(f"mmcv-lite has no compiled operator {name!r}; install full mmcv (docs/detectors.md)")

        return missing


def ensure_mmcv_operators() -> bool:
    """Put the stand-in in place if mmcv's compiled operators are missing.

    Returns:
        Whether they are really there, i.e. whether full mmcv is installed.

    Raises:
        RewardError: neither mmcv nor mmcv-lite is installed.
    """
    if importlib.util.find_spec("mmcv") is None:
        raise RewardError("detector 'mmdet' needs mmcv or mmcv-lite, and neither is installed; see docs/detectors.md")
    if importlib.util.find_spec(_NAME) is None:
        module = _StandIn(_NAME)
        module.__spec__ = ModuleSpec(_NAME, None)
        sys.modules[_NAME] = module
    return not isinstance(sys.modules.get(_NAME), _StandIn)
