"""Typed run configurations: pydantic schema, YAML loader and recipes. Imports neither torch, vLLM nor Ray."""

from configs.faults import FaultsSection
from configs.loader import (
    DEFAULT_RECIPE,
    ConfigError,
    differing_keys,
    dump_config,
    load_run_config,
    load_warmstart_config,
)
from configs.schema import RewardSection, RunConfig, WarmstartConfig, WarningsSection

__all__ = [
    "DEFAULT_RECIPE",
    "ConfigError",
    "FaultsSection",
    "RewardSection",
    "RunConfig",
    "WarmstartConfig",
    "WarningsSection",
    "differing_keys",
    "dump_config",
    "load_run_config",
    "load_warmstart_config",
]
