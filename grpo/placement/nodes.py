"""Workers on GPUs and nodes, as Ray places them: node after node in the order of their start, shares packed tightly."""

from __future__ import annotations

from dataclasses import dataclass

from configs import ConfigError, RunConfig
from rollout.resources import num_reward_workers

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


def place(config: RunConfig) -> Placement:
    """Placement on `cluster.nodes` nodes of `cluster.gpus_per_node` GPUs (None: as many as are needed).

    Raises:
        ConfigError: more GPUs than there are, or trainer ranks that would share one.
    """
    cluster, counts, shares = config.cluster, num_workers(config), config.cluster.shares
    if cluster.trainers > 1 and 0 < cluster.gpus_per_trainer < 1:
        raise ConfigError(
            f"cluster.gpus_per_trainer={cluster.gpus_per_trainer:g}: {cluster.trainers} trainer ranks could land on "
            "the same GPU, which NCCL refuses; give every rank a whole one"
        )
    wanted = sum(counts[kind] * share for kind, share in shares.items())
    found = None if cluster.gpus_per_node is None else cluster.nodes * cluster.gpus_per_node
    if found is not None and wanted > found + EPSILON:
        parts = ", ".join(f"{count} x {shares[kind]:g} for {kind}s" for kind, count in counts.items() if shares[kind])
        raise ConfigError(
            f"section cluster asks for {wanted:g} GPUs in all ({parts}); cluster.nodes={cluster.nodes} with "
            f"cluster.gpus_per_node={cluster.gpus_per_node} have {found}"
        )
    limit = cluster.gpus_per_node if found is not None else -(-sum(counts.values()) // cluster.nodes)
    nodes: list[list[Gpu]] = [[] for _ in range(cluster.nodes)]
    for kind in (kind for kind, count in counts.items() if shares[kind] for _ in range(count)):
        gpu = _choose(nodes, limit, shares, shares[kind])
        if gpu is None:
            raise ConfigError(f"section cluster: no GPU has {shares[kind]:g} left for a {kind}; give whole GPUs")
        gpu[kind] = gpu.get(kind, 0) + 1
    on_cpu = {kind: count for kind, count in counts.items() if not shares[kind]}
    return Placement(tuple(tuple(node) for node in nodes), on_cpu)


def _choose(nodes: list[list[Gpu]], limit: int, shares: dict[str, float], share: float) -> Gpu | None:
    """The fullest GPU of the first node that has room for `share`, or a fresh one there; None: no room anywhere."""
    for node in nodes:
        free = [(1 - sum(count * shares[kind] for kind, count in gpu.items()), i) for i, gpu in enumerate(node)]
        fitting = [(room, i) for room, i in free if room > share - EPSILON]
        if fitting:
            return node[min(fitting)[1]]
        if len(node) < limit:
            node.append({})
            return node[-1]
    return None
