"""Starts vLLM as a sampler of image tokens: on the released folder as it is, without tokenizer, in the actor's process.

What vLLM runs there is in `vllm_model.py`. All that differs between CPU and CUDA builds is in
`EAGER_CPU_ENVIRONMENT`, `_cpu_options` and `_cuda_options`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import torch

from blip3o_grpo.policies import ImageTokens, image_tokens, load_config
from blip3o_grpo.rollout.vllm_seams import ENVIRONMENT
from blip3o_grpo.rollout.workers.compiler import check_compiler

if TYPE_CHECKING:
    from transformers import Qwen3Config
    from vllm import LLM

FORMAT = "blip3o_next"
"""vLLM's name of the released layout, for configurations and for weights (`vllm_model.register`)."""
CPU_BLOCK_SIZE = 32  # the CPU kernels want multiples of 32, and small blocks share more of a group's prompt
CUDA_BLOCK_SIZE = 16  # vLLM's own
MEMORY_SHARE = 0.25  # of the machine, at most, for the KV cache on CPU
PROMPT_TOKENS = 256
"""Room for a prompt in a cache whose size is given; a longer one makes vLLM draw fewer completions at a time."""

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
    transfer: str | None = None
    """vLLM's weight-transfer backend that fills it; None: weights only come from the object store. With `ipc` it shares
    a GPU with the trainer and sleeps meanwhile."""


class EngineIds:
    """Token ids of the policy to those of the engine, and back."""

    def __init__(self, tokens: ImageTokens, vocab_size: int):
        self.start = tokens.start
        self.vocab_size = vocab_size

    def of_prompt(self, ids: Sequence[int]) -> list[int]:
        """Engine ids of policy ids."""
        return [(token_id - self.start) % self.vocab_size for token_id in ids]

    def to_policy(self, ids: Sequence[int]) -> np.ndarray:
        """Policy ids, int32, of engine ids."""
        return ((np.asarray(ids, np.int64) + self.start) % self.vocab_size).astype(np.int32)


def engine_environment(settings: EngineSettings) -> dict[str, str]:
    """Variables of a sampler, to be set before vLLM is imported."""
    return ENVIRONMENT | EAGER_CPU_ENVIRONMENT if settings.enforce_eager and not settings.gpus else ENVIRONMENT


def start_engine(policy_path: Path, settings: EngineSettings) -> LLM:
    """An engine for the AR part of a policy; its token ids are `EngineIds`.

    Args:
        policy_path: folder in the released layout; nothing is copied, and only the AR part's tensors are read.
        settings: sizes.

    Raises:
        RolloutError: the model is to be compiled for CPU and there is no C++ compiler.
        CheckpointError: the folder lacks a tensor.
    """
    from vllm import LLM

    from blip3o_grpo.rollout.workers.vllm_model import register

    if not settings.enforce_eager and not settings.gpus:
        check_compiler("rollout.enforce_eager=false", "rollout.enforce_eager=true")
    register(FORMAT)
    return LLM(**engine_options(policy_path, settings))


def engine_options(policy_path: Path, settings: EngineSettings) -> dict[str, Any]:
    """Arguments of vLLM's `LLM`."""
    config = load_config(policy_path)
    return {
        "model": str(policy_path),
        "config_format": FORMAT,
        "load_format": FORMAT,
        "enforce_eager": settings.enforce_eager,
        "skip_tokenizer_init": True,
        "generation_config": "vllm",  # a checkpoint's own sampling options are ignored
        "dtype": settings.dtype,
        "max_model_len": config.max_position_embeddings,
        "max_num_seqs": settings.max_num_seqs,
        "max_num_batched_tokens": max(8192, config.max_position_embeddings),
        "enable_prefix_caching": True,
        "logprobs_mode": "processed_logprobs",
        "disable_log_stats": True,
        "seed": 0,
        **({"weight_transfer_config": {"backend": settings.transfer}} if settings.transfer else {}),
        **(_cuda_options(config, settings) if settings.gpus else _cpu_options(config, settings)),
    }


def _cpu_options(config: Qwen3Config, settings: EngineSettings) -> dict[str, Any]:
    longest = _bytes_per_token(config, settings) * (config.max_position_embeddings + CPU_BLOCK_SIZE)
    most = int(MEMORY_SHARE * psutil.virtual_memory().total)
    return {
        "block_size": CPU_BLOCK_SIZE,
        "kv_cache_memory_bytes": max(longest, min(most, longest * settings.max_num_seqs)),
    }


def _cuda_options(config: Qwen3Config, settings: EngineSettings) -> dict[str, Any]:
    """A sampler with neighbours on its GPU is told the size of its cache, that of a chunk. vLLM would measure what is
    free before and after its first pass, and take what a decoder loads meanwhile for its own."""
    options = {
        "gpu_memory_utilization": 0.9 * min(settings.gpus, 1.0),
        "enable_sleep_mode": settings.transfer == "ipc",
    }
    if settings.gpus < 1:
        per_token = _bytes_per_token(config, settings)
        longest = per_token * (config.max_position_embeddings + CUDA_BLOCK_SIZE)  # vLLM refuses less
        completion = per_token * (image_tokens(config).num_tokens + PROMPT_TOKENS + CUDA_BLOCK_SIZE)
        options["kv_cache_memory_bytes"] = max(longest, completion * settings.max_num_seqs)
    return options


def _bytes_per_token(config: Qwen3Config, settings: EngineSettings) -> int:
    """Of keys and values."""
    bytes_per_value = torch.finfo(getattr(torch, settings.dtype)).bits // 8
    return 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * bytes_per_value
