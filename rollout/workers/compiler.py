"""Whether a model can be compiled for CPU: PyTorch needs a C++ compiler for that."""

from __future__ import annotations

import os
import shutil

from blip3o_grpo.rollout.types import RolloutError


def check_compiler(wish: str, way_out: str) -> None:
    """Refuse to compile without a C++ compiler (`CXX`, else g++).

    Args:
        wish: the setting that asks for it.
        way_out: the setting that does without.

    Raises:
        RolloutError: naming both.
    """
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        raise RolloutError(
            f"{wish} compiles a model, which needs a C++ compiler; {compiler} was not found. "
            f"Install one, or set {way_out}"
        )
