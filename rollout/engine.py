"""Starts vLLM as a sampler of image tokens: without tokenizer, without weights of its own, inside the actor's process.

All that differs between CPU and CUDA builds is in `EAGER_CPU_ENVIRONMENT`, `_cpu_options` and `_cuda_options`.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import torch

from rollout.errors import RolloutError

if TYPE_CHECKING:
    from transformers import Qwen3Config
    from vllm import LLM

CPU_BLOCK_SIZE = 32  # the CPU kernels want multiples of 32, and small blocks share more of a group's prompt
MEMORY_SHARE = 0.25  # of the machine, at most, for the KV cache on CPU

# No engine subprocess (weights could not be handed over), no third-party plugins
# (PaddleX registers one that fails), the model runner that `reload_weights` and the logits processor belong to.
ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_PLUGINS": "",
    "VLLM_USE_V2_MODEL_RUNNER": "0",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
}
# An eager engine on CPU: without this, vLLM would still compile a helper that ranks log-probabilities.
EAGER_CPU_ENVIRONMENT = {"TORCHDYNAMO_DISABLE": "1"}


@dataclass(frozen=True)
class EngineSettings:
    """What a run asks of its engines."""

    dtype: str
    max_num_seqs: int
    """Completions drawn at the same time."""
    gpus: float
    """GPUs of one sampler; 0: CPU build."""
    enforce_eager: bool = True
    """Run the model as it is instead of compiling it."""


def engine_environment(settings: EngineSettings) -> dict[str, str]:
    """Variables of a sampler, to be set before vLLM is imported."""
    return ENVIRONMENT | EAGER_CPU_ENVIRONMENT if settings.enforce_eager and not settings.gpus else ENVIRONMENT


def start_engine(config: Qwen3Config, settings: EngineSettings) -> LLM:
    """An engine for the AR part of a policy, with dummy weights (`reload_weights` brings the real ones).

    Args:
        config: of `policies.load_config`.
        settings: sizes.

    Raises:
        RolloutError: the model is to be compiled for CPU and there is no C++ compiler.
    """
    from vllm import LLM

    if not settings.enforce_eager and not settings.gpus:
        check_compiler()
    with tempfile.TemporaryDirectory(prefix="blip3o-engine-") as folder:
        write_engine_config(config, Path(folder))
        return LLM(
            model=folder,
            enforce_eager=settings.enforce_eager,
            load_format="dummy",
            skip_tokenizer_init=True,
            generation_config="vllm",  # a checkpoint's own sampling options are ignored
            dtype=settings.dtype,
            max_model_len=config.max_position_embeddings,
            max_num_seqs=settings.max_num_seqs,
            max_num_batched_tokens=max(8192, config.max_position_embeddings),
            enable_prefix_caching=True,
            logprobs_mode="processed_logprobs",
            logits_processors=["rollout.support:ImageTokenSupport"],
            disable_log_stats=True,
            seed=0,
            **(_cuda_options(settings) if settings.gpus else _cpu_options(config, settings)),
        )


def check_compiler() -> None:
    """Refuse to compile without a C++ compiler (`CXX`, else g++).

    Raises:
        RolloutError: naming the option that switches compilation off.
    """
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        raise RolloutError(
            f"rollout.enforce_eager=false compiles the sampler's model, which needs a C++ compiler; {compiler} was not "
            "found. Install one, or set rollout.enforce_eager=true"
        )


def write_engine_config(config: Qwen3Config, folder: Path) -> None:
    """Write the AR part's configuration as a plain Qwen3 one, image token ids included."""
    values = config.to_diff_dict() | {"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"]}
    (folder / "config.json").write_text(json.dumps(values), encoding="utf-8")


def _cpu_options(config: Qwen3Config, settings: EngineSettings) -> dict[str, Any]:
    bytes_per_value = torch.finfo(getattr(torch, settings.dtype)).bits // 8
    bytes_per_token = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * bytes_per_value
    one_sequence = bytes_per_token * (config.max_position_embeddings + CPU_BLOCK_SIZE)
    most = int(MEMORY_SHARE * psutil.virtual_memory().total)
    return {
        "block_size": CPU_BLOCK_SIZE,
        "kv_cache_memory_bytes": max(one_sequence, min(most, one_sequence * settings.max_num_seqs)),
    }


def _cuda_options(settings: EngineSettings) -> dict[str, Any]:
    return {"gpu_memory_utilization": 0.9 * min(settings.gpus, 1.0)}
