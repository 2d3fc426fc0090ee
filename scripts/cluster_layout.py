"""A run as `cluster_events.py` needs it: its workers on a machine's cores or on the GPUs of a cluster, and their costs.

Constants of stages come from `grpo/planning`. What lies between GPUs and nodes is assumed (`Links`), not measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from blip3o_grpo.configs import ConfigError, RunConfig
from blip3o_grpo.planning.costs import MEGAPIXEL, policy_of_shapes
from blip3o_grpo.planning.footprint import BFLOAT, FLOAT, footprints
from blip3o_grpo.planning.times import StageTimes
from blip3o_grpo.rollout.placement.gpus import num_workers, place
from blip3o_grpo.rollout.placement.resources import num_replicas, plan_resources
from blip3o_grpo.rollout.requests import groups_per_chunk, groups_per_part
from blip3o_grpo.rollout.weights.path import weight_path
from scripts.cluster_events import Chunk, Cluster, Costs, Part, Piece, Sync, Worker

GB = 1e9
RESIDENT_TRIPS = 2
"""A sampler that sleeps takes its weights to host memory and back."""
TOKEN_BYTES = 8
"""Id and log-prob."""
PNG_THREADS = 4
"""Of rank 0, which writes the recorded pictures of all ranks (`rollout/recorder.py`)."""


@dataclass(frozen=True)
class Links:
    """Bytes per second, and seconds of the ranks' CPUs: assumptions, each with its origin."""

    nvlink: float = 0.8 * 450e9
    """Between GPUs of a node: 80 % of the data sheet's (H100, H200)."""
    network: float = 0.8 * 50e9
    """Of one GPU's own network card: 80 % of 400 Gb/s."""
    store: float = 3.2e9
    """Out of one node through Ray's object store: Ray's release test of 2.x takes 16.9 s to bring 1 GiB to 50 nodes
    (`release/perf_metrics/scalability/object_store.json` in Ray's repository)."""
    host: float = 8e9
    """Between a GPU and pageable host memory, and one core's copies inside that."""
    pinned: float = 25e9
    """Between a GPU and pinned host memory."""
    png_s: float = 0.074
    """To write a picture of 1,024 x 1,024 px as PNG (`docs/scaling.md` has the command)."""
    signals_s: float = 0.0011
    """To measure a picture (`grpo/run/image_signals.py`), likewise."""
    cores_per_node: int = 96
    gpus_per_node: int = 8


def divide(config: RunConfig, images_per_score: int | None = None) -> list[list[Chunk]]:
    """A step's images per trainer rank, in the calls that `rollout/flow.py` makes of them.

    `images_per_score` is what no run can do yet: parts are scored in pieces of so many images, each by another worker.
    """
    rollout, size = config.rollout, config.rollout.group_size
    groups = rollout.prompts_per_step // config.cluster.trainers
    per_chunk, per_part = groups_per_chunk(config, groups, size), groups_per_part(config, size)
    starts = range(0, groups, per_chunk)
    ranks = []
    for rank in range(config.cluster.trainers):
        chunks = []
        for turn, start in enumerate(starts, start=rank * len(starts)):
            counts = pieces_of(min(per_chunk, groups - start), per_part)
            numbers = range(turn * len(counts), (turn + 1) * len(counts))
            parts = [
                part_of(count * size, number, number, images_per_score)
                for count, number in zip(counts, numbers, strict=True)
            ]
            chunks.append(Chunk(turn, tuple(parts)))
        ranks.append(chunks)
    return ranks


def pieces_of(whole: int, most: int) -> list[int]:
    """The whole in pieces of `most`; the last one is what is left."""
    return [min(most, whole - first) for first in range(0, whole, most)]


def part_of(images: int, turn: int, scoring_turn: int, images_per_score: int | None) -> Part:
    """A part that is scored whole, or in pieces."""
    counts = pieces_of(images, images_per_score or images)
    pieces = [Piece(count, scoring_turn * len(counts) + number) for number, count in enumerate(counts)]
    return Part(images, turn, tuple(pieces))


def on_cores(config: RunConfig, costs: Costs, cores: int) -> Cluster:
    """All workers on the cores of one machine, each with the threads it gets there; rewards score on one thread.

    Weight sync and whatever else happens outside the rollouts is in `costs.train`.
    """
    plan = plan_resources(config, cores)
    rank_threads = config.cluster.threads or max(1, cores // config.cluster.trainers)

    def pool(count: int, threads: float) -> tuple[Worker, ...]:
        return (Worker("cores", threads=threads),) * count

    return Cluster(
        devices={"cores": cores},
        samplers=pool(config.cluster.samplers, plan["sample"].threads),
        decoders=pool(config.cluster.decoders, plan["decode"].threads),
        rewards={reward.name: pool(num_replicas(config, reward), 1) for reward in config.rewards},
        trainers=pool(config.cluster.trainers, rank_threads),
        costs=costs,
    )


@dataclass(frozen=True)
class Shapes:
    """What a policy's shapes say beyond its stage times."""

    sample: float
    """Seconds of an image, without its share of an engine call."""
    weights: int
    """Values of the AR part."""
    num_tokens: int
    pixels: int
    """Of a picture."""


def read_shapes(policy_path: Path, times: StageTimes, config: RunConfig) -> Shapes:
    """Of the policy in a folder, and of `times`, which hold for this recipe's chunks; nothing is loaded."""
    policy = policy_of_shapes(policy_path)
    drawn = min(config.rollout.prompts_per_chunk, config.rollout.prompts_per_step) * config.rollout.group_size
    side = policy.sana.config.sample_size * policy.vae.spatial_compression_ratio
    weights = sum(parameter.numel() for parameter in policy.ar.parameters())
    return Shapes(times.sample - times.sample_call / drawn, weights, policy.image_tokens.num_tokens, side**2)


def on_gpus(config: RunConfig, times: StageTimes, shapes: Shapes, links: Links, decoders_join: bool = False) -> Cluster:
    """A run's own placement: every worker on its GPU, reward workers spread over the nodes' cores.

    `decoders_join`: see `sync_of`.

    Raises:
        ConfigError: the placement cannot be, or the trainer has no GPU.
    """
    placement = place(config)
    devices: dict[str, float] = {}
    pools: dict[str, list[Worker]] = {kind: [] for kind in num_workers(config)}
    for node, gpus in enumerate(placement.nodes):
        for index, gpu in enumerate(gpus):
            name = f"GPU {index} of node {node}"
            devices[name] = 1
            for kind, count in gpu.items():
                pools[kind] += [Worker(name, node)] * count
    if without := [kind for kind in placement.on_cpu if kind != "reward"]:
        raise ConfigError(f"cluster.gpus_per_{without[0]}=0: the simulation of GPUs wants one for every {without[0]}")
    rewards, cores = reward_workers(config, len(placement.nodes), links)
    trainers = tuple(pools["trainer"])
    return Cluster(
        devices=devices | cores,
        samplers=tuple(pools["sampler"]),
        decoders=tuple(pools["decoder"]),
        rewards=rewards,
        trainers=trainers,
        costs=replace(stage_costs(config, times, shapes, links), join_s=join_seconds(trainers, shapes, links)),
        sync=sync_of(config, pools, shapes, links, decoders_join),
        **result_sizes(shapes, links),
    )


def co_located(config: RunConfig, times: StageTimes, shapes: Shapes, links: Links, num_gpus: int) -> Cluster:
    """Every GPU draws, decodes and learns its own prompts, one role after the other; `config` has a rank per GPU.

    The trained weights are on every GPU already, and are copied there; the sampler's sleep in host memory meanwhile.
    """
    nodes = -(-num_gpus // links.gpus_per_node)
    places = [divmod(index, links.gpus_per_node) for index in range(num_gpus)]
    workers = tuple(Worker(f"GPU {gpu} of node {node}", node) for node, gpu in places)
    rewards, cores = reward_workers(config, nodes, links)
    woken = RESIDENT_TRIPS * shapes.weights * BFLOAT / links.pinned
    return Cluster(
        devices={worker.device: 1 for worker in workers} | cores,
        samplers=workers,
        decoders=workers,
        rewards=rewards,
        trainers=workers,
        costs=replace(stage_costs(config, times, shapes, links), join_s=join_seconds(workers, shapes, links)),
        sync=Sync(transfer_s=woken),
        **result_sizes(shapes, links),
    )


def divide_co_located(config: RunConfig, replicas: int, images_per_score: int | None = None) -> list[list[Chunk]]:
    """Every rank's groups in one engine call of its own sampler, decoded by its own decoder, and scored in turn by the
    reward workers of its node that are its own, of `replicas` in all."""
    size, ranks = config.rollout.group_size, config.cluster.trainers
    own = replicas // ranks
    found = []
    for rank in range(ranks):
        counts = pieces_of(config.rollout.prompts_per_step // ranks, groups_per_part(config, size))
        parts = [part_of(count * size, rank, number, images_per_score) for number, count in enumerate(counts)]
        at_home = [
            replace(part, pieces=tuple(replace(piece, turn=rank * own + piece.turn % own) for piece in part.pieces))
            for part in parts
        ]
        found.append([Chunk(rank, tuple(at_home))])
    return found


def check_co_located(config: RunConfig, policy_path: Path, memory_gb: float) -> None:
    """Refuse GPUs that cannot hold all three roles at once; a sampler's cache counts as what it needs at least.

    Raises:
        ConfigError: with the bytes of each.
    """
    needed = {kind: size.lasting / GB for kind, size in footprints(config, policy_path).items()}
    if sum(needed.values()) > memory_gb:
        parts = ", ".join(f"{kind} {size:.1f}" for kind, size in needed.items())
        raise ConfigError(f"a GPU of {memory_gb:g} GB cannot hold all roles at once: {parts} GB")


def reward_workers(
    config: RunConfig, nodes: int, links: Links
) -> tuple[dict[str, tuple[Worker, ...]], dict[str, float]]:
    """Reward replicas spread over the nodes, and the nodes' cores."""
    cores = {f"cores of node {node}": float(links.cores_per_node) for node in range(nodes)}

    def pool(count: int) -> tuple[Worker, ...]:
        places = [index * nodes // count for index in range(count)]
        return tuple(Worker(f"cores of node {node}", node) for node in places)

    return {reward.name: pool(num_replicas(config, reward)) for reward in config.rewards}, cores


def stage_costs(config: RunConfig, times: StageTimes, shapes: Shapes, links: Links) -> Costs:
    """Of the stages, and of what the ranks' CPUs do between rollouts and training and beside them.

    `times.score` is of all rewards together and counts as the first one's.
    """
    rollout, names = config.rollout, [reward.name for reward in config.rewards]
    groups = rollout.prompts_per_step // config.cluster.trainers
    kept = rollout.group_size if rollout.record_images == "all" else 2
    written = rollout.prompts_per_step * kept / rollout.record_every_steps if rollout.record_every_steps else 0
    return Costs(
        sample=shapes.sample,
        sample_call=times.sample_call,
        decode=times.decode_once + times.decode_per_step * rollout.num_diffusion_steps,
        score=dict.fromkeys(names, 0.0) | {names[0]: times.score},
        train=times.train,
        after_s=groups * rollout.group_size * links.signals_s,
        record_s=written * links.png_s * shapes.pixels / MEGAPIXEL / PNG_THREADS,
    )


def join_seconds(trainers: tuple[Worker, ...], shapes: Shapes, links: Links) -> float:
    """Of summing float32 gradients over the ranks in a ring, each GPU with its own network card; no overlap counted."""
    ranks = len(trainers)
    per_node = min(_per_node(trainers).values())
    several = len(_per_node(trainers)) > 1
    rate = min(links.nvlink, links.network * per_node) if several else links.nvlink
    return 2 * (ranks - 1) / ranks * shapes.weights * FLOAT / rate


def _per_node(workers: tuple[Worker, ...]) -> Mapping[int, int]:
    nodes = [worker.node for worker in workers]
    return {node: nodes.count(node) for node in set(nodes)}


def sync_of(
    config: RunConfig, pools: Mapping[str, list[Worker]], shapes: Shapes, links: Links, decoders_join: bool = False
) -> Sync:
    """As `rollout/weights/` does it: decoders read the object store, samplers too where there is no other way.

    With `decoders_join`, which no run can do yet, decoders take part in the transfer from GPU to GPU.
    """
    path, stored = weight_path(config), shapes.weights * (BFLOAT if config.policy.dtype == "bfloat16" else FLOAT)
    home = pools["trainer"][0].node
    joining = pools["sampler"] + (pools["decoder"] if decoders_join else [])
    far = any(worker.node != home for worker in joining)
    fetchers = [] if decoders_join else pools["decoder"] + (pools["sampler"] if path == "object_store" else [])
    moved = shapes.weights * BFLOAT / (links.network if far else links.nvlink)
    return Sync(
        pack_s=2 * stored / links.host,  # to host memory, and from there into the object store
        store_bytes=stored,
        fetchers=tuple(fetchers),
        load_s=2 * stored / links.host,
        transfer_s=0.0 if path == "object_store" and not decoders_join else moved,
    )


def result_sizes(shapes: Shapes, links: Links) -> dict[str, float]:
    """Fields of `Cluster` that say how large results are and how fast they travel."""
    return {
        "store_bytes_per_s": links.store,
        "completion_bytes": float(shapes.num_tokens * TOKEN_BYTES),
        "picture_bytes": 3.0 * shapes.pixels,
    }
