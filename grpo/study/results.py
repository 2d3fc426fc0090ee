"""Writes results as JSON that every reader understands."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from blip3o_grpo.configs.atomic import write_atomically


def write_json(path: Path, value: Any) -> None:
    """Write `value` whole or not at all; NaN and infinity, which JSON cannot say, become null."""
    write_atomically(path, json.dumps(_finite(value), indent=1, ensure_ascii=False) + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
