"""Starts the actors of a run: samplers, decoders, and one pool per reward."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import ray
from ray.actor import ActorHandle

from configs import RewardSection, RunConfig
from rollout.decoder import Decoder
from rollout.engine import EngineSettings, engine_environment
from rollout.environments import check_reward_interpreter, reward_environment
from rollout.resources import (
    WorkerResources,
    available_cpus,
    check_gpus,
    check_interpreter,
    num_replicas,
    plan_resources,
)
from rollout.reward_worker import RewardWorker
from rollout.sampler import Sampler
from rollout.weight_sync import Board
from rollout.worker import Worker

MAX_RESTARTS = 3
"""Of a worker that dies, and times a call is repeated; a restarted worker fetches its snapshot by itself."""

Pools = dict[str, tuple[ActorHandle, ...]]


def start_pools(config: RunConfig, policy_path: Path) -> tuple[ActorHandle, Pools]:
    """The board, and the workers under `sample`, `decode` and `score/NAME`; models are not loaded yet.

    All actors of a run live in one Ray namespace under readable names.

    Raises:
        RolloutError: a Python that Ray could not start workers with, or too few GPUs.
    """
    check_interpreter()
    check_gpus(config)
    for reward in config.rewards:
        check_reward_interpreter(reward)
    plan = plan_resources(config, available_cpus())
    namespace = f"blip3o-grpo-{uuid.uuid4().hex[:8]}"
    engine = EngineSettings(
        config.policy.dtype, images_per_chunk(config), config.cluster.gpus_per_sampler, config.rollout.enforce_eager
    )
    device = "cuda" if config.cluster.gpus_per_decoder else "cpu"

    def start(cls: type[Worker], name: str, stage: str, *args: Any) -> ActorHandle:
        variables = plan[stage].environment()
        if cls is Sampler:
            variables |= engine_environment(engine)
        return _actor(cls, name, namespace, plan[stage], {"env_vars": variables}).remote(name, *args)

    pools: Pools = {
        "sample": tuple(
            start(Sampler, f"sampler-{i}", "sample", policy_path, engine, config.rollout.temperature)
            for i in range(config.cluster.samplers)
        ),
        "decode": tuple(
            start(
                Decoder,
                f"decoder-{i}",
                "decode",
                policy_path,
                config.policy.dtype,
                device,
                config.rollout.guidance_scale,
                config.rollout.decoder.model_dump(),
            )
            for i in range(config.cluster.decoders)
        ),
    }
    for reward in config.rewards:
        pools[f"score/{reward.name}"] = start_reward_workers(config, reward, namespace, plan["score"])
    board = ray.remote(Board).options(name="board", namespace=namespace, num_cpus=0).remote()
    return board, pools


def start_reward_workers(
    config: RunConfig, reward: RewardSection, namespace: str, resources: WorkerResources
) -> tuple[ActorHandle, ...]:
    """All replicas of one reward, in its own environment if it has one."""
    environment = reward_environment(reward, resources.environment())
    names = [f"reward-{reward.name}-{i}" for i in range(num_replicas(config, reward))]
    return tuple(
        _actor(RewardWorker, name, namespace, resources, environment).remote(
            name, reward.name, reward.target, reward.options, reward.batch_size
        )
        for name in names
    )


def images_per_chunk(config: RunConfig) -> int:
    """Completions of one engine call."""
    return config.rollout.prompts_per_chunk * config.rollout.group_size


def _actor(
    cls: type[Worker], name: str, namespace: str, resources: WorkerResources, environment: dict[str, Any]
) -> Any:
    return ray.remote(cls).options(
        name=name,
        namespace=namespace,
        num_cpus=resources.num_cpus,
        num_gpus=resources.num_gpus,
        max_restarts=MAX_RESTARTS,
        max_task_retries=MAX_RESTARTS,
        runtime_env=environment,
    )
