"""Starts the actors of a run: samplers, decoders, and one pool per reward."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import ray
from ray.actor import ActorHandle

from blip3o_grpo.configs import FaultsSection, RewardSection, RunConfig
from blip3o_grpo.policies.kinds import KINDS
from blip3o_grpo.rollout.faults.board import Board
from blip3o_grpo.rollout.faults.calls import worker_name
from blip3o_grpo.rollout.messages import BOARD
from blip3o_grpo.rollout.placement.gpus import check_gpus, ranks_share
from blip3o_grpo.rollout.placement.resources import (
    WorkerResources,
    available_cpus,
    check_interpreter,
    num_replicas,
    plan_resources,
)
from blip3o_grpo.rollout.placement.shared import SharedGpus
from blip3o_grpo.rollout.weights.path import weight_path
from blip3o_grpo.rollout.workers.base import Worker
from blip3o_grpo.rollout.workers.decoder import Decoder
from blip3o_grpo.rollout.workers.engine import EngineSettings, engine_environment
from blip3o_grpo.rollout.workers.environments import (
    check_reward_interpreter,
    make_import_root,
    reward_environment,
)
from blip3o_grpo.rollout.workers.no_sampler import NoSampler
from blip3o_grpo.rollout.workers.reward import RewardWorker
from blip3o_grpo.rollout.workers.sampler import Sampler

UNBOUNDED = {"max_restarts": -1, "max_task_retries": -1}
"""Ray starts dead workers again and repeats their calls; `rollout.faults.ledger` keeps the bound, per call."""

Pools = dict[str, tuple[ActorHandle, ...]]


def start_pools(config: RunConfig, policy_path: Path) -> tuple[ActorHandle, Pools, SharedGpus | None]:
    """The board, the workers under `sample`, `decode` and `score/NAME`, and the GPUs that trainer ranks share with them
    if they do; models are not loaded yet.

    All actors of a run live in one Ray namespace under readable names.

    Raises:
        RolloutError: a Python that Ray could not start workers with, or too few GPUs.
    """
    check_interpreter()
    check_gpus(config)
    for reward in config.rewards:
        check_reward_interpreter(reward)
    plan = plan_resources(config, available_cpus())
    shared = SharedGpus(config, plan) if ranks_share(config) else None
    namespace = f"blip3o-grpo-{uuid.uuid4().hex[:8]}"
    path = weight_path(config)
    engine = EngineSettings(
        config.policy.dtype,
        images_per_chunk(config),
        config.cluster.gpus_per_sampler,
        config.rollout.enforce_eager,
        transfer=None if path == "object_store" else path,
    )
    device = "cuda" if config.cluster.gpus_per_decoder else "cpu"

    board = start_board(config.faults, namespace)  # first: workers look it up by its name

    def start(cls: type[Worker], index: int, stage: str, *args: Any) -> ActorHandle:
        variables = plan[stage].environment()
        if cls is Sampler:
            variables |= engine_environment(engine)
        environment = {"env_vars": variables}
        return start_on(cls, worker_name(stage, index), namespace, plan[stage], environment, shared, stage, *args)

    def start_sampler(index: int) -> ActorHandle:
        if not KINDS[config.policy.type].samples_tokens:
            return start(NoSampler, index, "sample")
        return start(Sampler, index, "sample", policy_path, engine, config.rollout.temperature)

    pools: Pools = {
        "sample": tuple(start_sampler(i) for i in range(config.cluster.samplers)),
        "decode": tuple(
            start(
                Decoder,
                i,
                "decode",
                config.policy.type,
                policy_path,
                config.policy.dtype,
                device,
                config.rollout.guidance_scale,
                config.rollout.decoder.model_dump(exclude={"vae_tiling"}),
            )
            for i in range(config.cluster.decoders)
        ),
    }
    for reward in config.rewards:
        pools[f"score/{reward.name}"] = start_reward_workers(config, reward, namespace, plan["score"], shared)
    return board, pools, shared


def start_board(faults: FaultsSection, namespace: str) -> ActorHandle:
    """The board of the actors in this Ray namespace."""
    options = {"name": BOARD, "namespace": namespace, "num_cpus": 0, **UNBOUNDED}
    return ray.remote(Board).options(**options).remote(namespace, faults)


def start_reward_workers(
    config: RunConfig,
    reward: RewardSection,
    namespace: str,
    resources: WorkerResources,
    shared: SharedGpus | None = None,
) -> tuple[ActorHandle, ...]:
    """All replicas of one reward, in its own environment if it has one; the namespace must have its board."""
    root = make_import_root(Path(config.run_dir) / ".imports") if reward.runtime_env else None
    job = ray.get_runtime_context().runtime_env.get("env_vars") or {}  # Ray lays an actor's variables over the job's
    variables = {key: job[key] for key in ("PYTHONPATH",) if key in job} | resources.environment()
    environment = reward_environment(reward, variables, root)
    names = [worker_name(f"score/{reward.name}", i) for i in range(num_replicas(config, reward))]
    args = (shared, "score", reward.name, reward.target, reward.options, reward.batch_size, reward.folder)
    return tuple(start_on(RewardWorker, name, namespace, resources, environment, *args) for name in names)


def images_per_chunk(config: RunConfig) -> int:
    """Completions of one engine call."""
    return config.rollout.prompts_per_chunk * config.rollout.group_size


def start_on(
    cls: type[Worker],
    name: str,
    namespace: str,
    resources: WorkerResources,
    environment: dict[str, Any],
    shared: SharedGpus | None,
    stage: str,
    *args: Any,
) -> ActorHandle:
    """One worker `cls("NAMESPACE/NAME", *args)`; if it has a GPU and some are shared, on the next of these."""
    actor = ray.remote(cls).options(
        name=name,
        namespace=namespace,
        num_cpus=resources.num_cpus,
        num_gpus=resources.num_gpus,
        runtime_env=environment,
        scheduling_strategy=shared.next(stage) if shared and resources.num_gpus else None,
        **UNBOUNDED,
    )
    return actor.remote(f"{namespace}/{name}", *args)
