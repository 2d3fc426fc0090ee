"""Who may use how many cores: threads, logical CPUs and GPUs of every pool, and the workers' environment.

More threads than cores cost a factor of 15 in a measurement (OpenMP teams spin while they wait for a core). Where
cores are fewer than workers, stages that run at the same time get one thread each; a stage that has the machine to
itself gets all of it.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass

from blip3o_grpo.configs import RewardSection, RunConfig
from blip3o_grpo.rollout.types import RolloutError


@dataclass(frozen=True)
class WorkerResources:
    """Of one worker of a pool."""

    threads: int
    num_cpus: float
    num_gpus: float

    def environment(self) -> dict[str, str]:
        """Variables to set before any library starts its threads; waiting threads sleep instead of spinning."""
        threads = str(self.threads)
        return {
            "OMP_NUM_THREADS": threads,
            "MKL_NUM_THREADS": threads,
            "OPENBLAS_NUM_THREADS": threads,
            "OMP_WAIT_POLICY": "PASSIVE",
            "TOKENIZERS_PARALLELISM": "false",
        }


def num_replicas(config: RunConfig, reward: RewardSection) -> int:
    """Workers of one reward."""
    return reward.replicas or config.cluster.rewards


def num_reward_workers(config: RunConfig) -> int:
    """Workers of all rewards."""
    return sum(num_replicas(config, reward) for reward in config.rewards)


def plan_resources(config: RunConfig, cpus: int) -> dict[str, WorkerResources]:
    """Resources per stage (`sample`, `decode`, `score`) on `cpus` cores.

    With one chunk per step and sampler, nothing can run before sampling ends, so samplers share all cores; else they
    share them with the other stages.
    """
    cluster, rollout = config.cluster, config.rollout
    counts = {"sample": cluster.samplers, "decode": cluster.decoders, "score": num_reward_workers(config)}
    gpus = {"sample": cluster.gpus_per_sampler, "decode": cluster.gpus_per_decoder, "score": cluster.gpus_per_reward}
    together = max(1, cpus // sum(counts.values()))
    turns = rollout.prompts_per_chunk * cluster.samplers >= rollout.prompts_per_step
    threads = {
        "sample": max(1, cpus // cluster.samplers) if turns else together,
        "decode": max(1, cpus // (counts["decode"] + 1)),
        "score": together,
    }
    if cluster.threads:
        threads = dict.fromkeys(threads, cluster.threads)
    # Ray's CPU numbers place workers on nodes; on a machine with fewer cores than threads they would only block.
    fits = sum(counts[stage] * threads[stage] for stage in counts) + cluster.trainers <= cpus
    return {stage: WorkerResources(threads[stage], threads[stage] if fits else 0, gpus[stage]) for stage in counts}


def available_cpus() -> int:
    """Cores of the cluster; on a single machine, those this process may run on."""
    import ray

    total = int(ray.cluster_resources().get("CPU", 1))
    return min(total, len(os.sched_getaffinity(0))) if len(ray.nodes()) == 1 else total


def check_interpreter() -> None:
    """Refuse a Python whose path holds a space: Ray splits it there and tries forever to start the worker.

    Raises:
        RolloutError: naming the path.
    """
    if " " in sys.executable:
        raise RolloutError(
            f"Ray cannot start workers from a path with a space in it: {sys.executable}; move the project"
        )
