"""Rollouts: prompts to token groups to images to scores, each stage a pool of Ray actors.

Names are imported when first used, so a reward worker in another environment needs neither vLLM nor torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOME = {
    "Completion": "types",
    "Prompt": "types",
    "Rollout": "types",
    "RolloutBatch": "types",
    "RolloutGroup": "types",
    "PromptError": "prompts",
    "load_prompts": "prompts",
    "completion_seed": "seeds",
    "noise_seed": "seeds",
    "RolloutError": "errors",
    "RolloutPipeline": "pipeline",
    "RolloutRecorder": "recorder",
    "read_rollouts": "records",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'rollout' has no attribute {name!r}")
    return getattr(import_module(f"rollout.{_HOME[name]}"), name)
