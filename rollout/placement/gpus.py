"""Workers on GPUs and nodes, as Ray places them: node after node in the order of their start, shares packed tightly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from blip3o_grpo.configs import ConfigError, RunConfig
from blip3o_grpo.rollout.placement.resources import num_reward_workers
from blip3o_grpo.rollout.types import RolloutError

EPSILON = 1e-6
Gpu = dict[str, int]
"""Workers on one GPU by kind."""


@dataclass(frozen=True)
class Placement:
    """Which workers share which GPU of which node."""

    nodes: tuple[tuple[Gpu, ...], ...]
    """Per node, the GPUs in use."""
    on_cpu: dict[str, int]
    """Workers without a GPU by kind; Ray puts them where there are CPUs."""


def num_workers(config: RunConfig) -> dict[str, int]:
    """Workers by kind, in the order of their start."""
    cluster = config.cluster
    return {
        "sampler": cluster.samplers,
        "decoder": cluster.decoders,
        "reward": num_reward_workers(config),
        "trainer": cluster.trainers,
    }


def num_gpus(config: RunConfig) -> float:
    """GPUs of all workers together."""
    return sum(count * config.cluster.shares[kind] for kind, count in num_workers(config).items())


def place(config: RunConfig, found: Sequence[int] | None = None) -> Placement:
    """Placement on nodes with `found` GPUs each; None: on `cluster.nodes` nodes of `cluster.gpus_per_node` GPUs.

    Raises:
        ConfigError: more GPUs than there are, no GPU with room for a worker, or trainer ranks that would share one.
    """
    cluster, counts, shares = config.cluster, num_workers(config), config.cluster.shares
    if cluster.trainers > 1 and 0 < cluster.gpus_per_trainer < 1:
        raise ConfigError(
            f"cluster.gpus_per_trainer={cluster.gpus_per_trainer:g}: {cluster.trainers} trainer ranks could land on "
            "the same GPU, which NCCL refuses; give every rank a whole one"
        )
    if found is not None:
        machines, limits = f"the Ray cluster has {sum(found)}", list(found)
    else:
        machines = f"cluster.nodes={cluster.nodes} with cluster.gpus_per_node={cluster.gpus_per_node} have "
        machines += str(cluster.nodes * (cluster.gpus_per_node or 0))
        as_needed = -(-sum(counts.values()) // cluster.nodes)
        limits = [as_needed if cluster.gpus_per_node is None else cluster.gpus_per_node] * cluster.nodes
    wanted = num_gpus(config)
    parts = ", ".join(f"{count} x {shares[kind]:g} for {kind}s" for kind, count in counts.items() if shares[kind])
    if wanted > sum(limits) + EPSILON:
        raise ConfigError(f"section cluster asks for {wanted:g} GPUs in all ({parts}); {machines}")
    nodes: list[list[Gpu]] = [[] for _ in limits]
    rooms: list[list[float]] = [[] for _ in limits]  # left of each GPU
    for kind in (kind for kind, count in counts.items() if shares[kind] for _ in range(count)):
        gpu = _choose(nodes, rooms, limits, shares[kind])
        if gpu is None:
            raise ConfigError(
                f"section cluster asks for {wanted:g} GPUs in all ({parts}); {machines}, but no GPU has "
                f"{shares[kind]:g} left for a {kind}; give whole GPUs"
            )
        gpu[kind] = gpu.get(kind, 0) + 1
    on_cpu = {kind: count for kind, count in counts.items() if not shares[kind]}
    return Placement(tuple(tuple(node) for node in nodes), on_cpu)


def check_gpus(config: RunConfig) -> None:
    """Refuse a run that would wait for nodes or GPUs the Ray cluster does not have.

    Raises:
        RolloutError: naming what is asked for and what is there.
    """
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if len(nodes) < config.cluster.nodes:
        raise RolloutError(
            f"cluster.nodes={config.cluster.nodes}, but the Ray cluster has {len(nodes)}: start Ray on the others "
            "(`ray start --address=HEAD:6379`), or lower cluster.nodes"
        )
    try:
        place(config, [int(resources.get("GPU", 0)) for resources in nodes])
    except ConfigError as error:
        raise RolloutError(str(error)) from None


def _choose(nodes: list[list[Gpu]], rooms: list[list[float]], limits: Sequence[int], share: float) -> Gpu | None:
    """The fullest GPU of the first node that has room for `share`, or a fresh one there; None: no room anywhere."""
    for node, room, limit in zip(nodes, rooms, limits, strict=True):
        fitting = [(left, index) for index, left in enumerate(room) if left > share - EPSILON]
        if not fitting and len(node) == limit:
            continue
        if not fitting:
            node.append({})
            room.append(1.0)
        index = min(fitting)[1] if fitting else len(node) - 1
        room[index] -= share
        return node[index]
    return None
