"""Workers on GPUs and nodes, as Ray places them: node after node in the order of their start, shares packed tightly.

Where several trainer ranks share GPUs with other workers, each is on a GPU of its own, and the others are dealt out to
these GPUs in turn (`shared.py` has Ray do it).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from blip3o_grpo.configs import ConfigError, RunConfig
from blip3o_grpo.rollout.placement.resources import num_reward_workers
from blip3o_grpo.rollout.types import RolloutError

EPSILON = 1e-6
HALF = 0.5
"""Of a GPU: with more than that for each, Ray cannot put two trainer ranks on one."""
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
    if ranks_share(config) and cluster.gpus_per_trainer <= HALF:
        raise ConfigError(
            f"cluster.gpus_per_trainer={cluster.gpus_per_trainer:g}: {cluster.trainers} trainer ranks could land on "
            "the same GPU, which NCCL refuses; give every rank more than half of one"
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
    asked = f"section cluster asks for {wanted:g} GPUs in all ({parts}); {machines}"
    if wanted > sum(limits) + EPSILON:
        raise ConfigError(asked)
    if ranks_share(config):
        if cluster.trainers > sum(limits):
            raise ConfigError(f"cluster.trainers={cluster.trainers} want a GPU each; {machines}")
        nodes = _beside_ranks(counts, shares, limits)
    else:
        nodes = _packed(counts, shares, limits, asked)
    on_cpu = {kind: count for kind, count in counts.items() if not shares[kind]}
    return Placement(tuple(tuple(node) for node in nodes), on_cpu)


def ranks_share(config: RunConfig) -> bool:
    """Whether several trainer ranks leave a part of their GPUs to other workers."""
    return config.cluster.trainers > 1 and 0 < config.cluster.gpus_per_trainer < 1


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


def _packed(counts: dict[str, int], shares: dict[str, float], limits: Sequence[int], asked: str) -> list[list[Gpu]]:
    """Node after node; a GPU that is begun is filled first. `asked`: how the refusal of what finds no room begins."""
    nodes: list[list[Gpu]] = [[] for _ in limits]
    rooms: list[list[float]] = [[] for _ in limits]  # left of each GPU
    for kind in (kind for kind, count in counts.items() if shares[kind] for _ in range(count)):
        gpu = _choose(nodes, rooms, limits, shares[kind])
        if gpu is None:
            raise ConfigError(f"{asked}, but no GPU has {shares[kind]:g} left for a {kind}; give whole GPUs")
        gpu[kind] = gpu.get(kind, 0) + 1
    return nodes


def _beside_ranks(counts: dict[str, int], shares: dict[str, float], limits: Sequence[int]) -> list[list[Gpu]]:
    """A rank on each of the first GPUs, and the workers of every other kind dealt out to these in turn."""
    gpus: list[Gpu] = [{"trainer": 1} for _ in range(counts["trainer"])]
    for kind in (kind for kind in counts if kind != "trainer" and shares[kind]):
        for index in range(counts[kind]):
            gpu = gpus[index % len(gpus)]
            gpu[kind] = gpu.get(kind, 0) + 1
            taken = sum(shares[each] * count for each, count in gpu.items())
            if taken > 1 + EPSILON:
                raise ConfigError(
                    f"cluster.gpus_per_{kind}={shares[kind]:g}: a GPU with {' + '.join(gpu)} would be taken {taken:g} "
                    f"times, and every worker shares that of a trainer rank "
                    f"(cluster.gpus_per_trainer={shares['trainer']:g}); give smaller shares"
                )
    ends = list(accumulate(limits))
    return [gpus[end - limit : end] for end, limit in zip(ends, limits, strict=True)]


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
