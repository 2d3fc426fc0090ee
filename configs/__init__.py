"""Typed run configurations: pydantic schema, YAML loader and recipes. Imports neither torch, vLLM nor Ray.

Names are imported when first used, so a reward worker in another environment needs no pydantic.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOME = {
    "DEFAULT_RECIPE": "loader",
    "ConfigError": "loader",
    "FaultsSection": "faults",
    "differing_keys": "loader",
    "dump_config": "loader",
    "expand_user": "loader",
    "load_run_config": "loader",
    "load_warmstart_config": "loader",
    "read_yaml": "loader",
    "RewardSection": "schema",
    "RunConfig": "schema",
    "WarmstartConfig": "schema",
    "WarningsSection": "schema",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'configs' has no attribute {name!r}")
    return getattr(import_module(f"configs.{_HOME[name]}"), name)
