"""Typed run configurations: pydantic schema, YAML loader and recipes. Imports neither torch, vLLM nor Ray.

The names below load pydantic only when first used, so a benchmark of the policy alone needs none.
"""

from importlib import import_module

_EXPORTS = {
    "DEFAULT_RECIPE": "configs.loader",
    "ConfigError": "configs.loader",
    "RewardSection": "configs.schema",
    "RunConfig": "configs.schema",
    "WarmstartConfig": "configs.schema",
    "WarningsSection": "configs.schema",
    "differing_keys": "configs.loader",
    "dump_config": "configs.loader",
    "load_run_config": "configs.loader",
    "load_warmstart_config": "configs.loader",
}
__all__ = sorted(_EXPORTS)


def __getattr__(name: str) -> object:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'configs' has no attribute {name!r}")
    return getattr(import_module(_EXPORTS[name]), name)
