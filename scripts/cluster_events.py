"""Training steps as discrete events: calls queue at workers, workers share devices, results travel between nodes.

What `rollout/flow.py` submits and Ray carries out, without a model behind it: a chunk is sampled, its parts are
decoded, every part is scored by every reward, each trainer rank gathers its own groups in order, all ranks learn, and
the new weights go to the workers. Time jumps from event to event, so 1,024 GPUs take seconds.

    device     so many cores, or one GPU (capacity 1); whatever runs on it shares it evenly, thread by thread
    worker     one call at a time, and each caller's calls in the order in which they were submitted, as Ray's actors
    result     lies on the node that made it; another node that needs it has it carried there, once

Left out: what goes wrong, the time of Ray's own messages, waiting for memory.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import simpy
from simpy.events import Event

SOON = 1e-9
"""Seconds; two ends that are nearer are one."""
WARM_UP_STEPS = 2
"""Left out of an outcome: the first steps start with an empty pipeline."""


@dataclass(frozen=True)
class Worker:
    """An actor or a trainer rank."""

    device: str
    node: int = 0
    threads: float = 1.0
    """Of the device's capacity, that one call can use at most."""


@dataclass(frozen=True)
class Piece:
    """Images of one call of a reward."""

    images: int
    turn: int
    """Which of the reward's workers has it, counted round and round."""


@dataclass(frozen=True)
class Part:
    """Images of one decoder call."""

    images: int
    turn: int
    """Which decoder has it, counted round and round."""
    pieces: tuple[Piece, ...]
    """In which every reward scores it."""


@dataclass(frozen=True)
class Chunk:
    """Images of one engine call."""

    turn: int
    """Likewise, of the samplers."""
    parts: tuple[Part, ...]

    @property
    def images(self) -> int:
        """Of all parts."""
        return sum(part.images for part in self.parts)


@dataclass(frozen=True)
class Costs:
    """Device-seconds: how long one thread takes that has its core, or its GPU, to itself."""

    sample: float
    """Of one image."""
    decode: float
    score: Mapping[str, float]
    """By reward."""
    train: float
    """Of one image, on the rank that has it."""
    sample_call: float = 0.0
    """Of an engine call, however many images it draws."""
    collect_s: float = 0.0
    """Of a step's rollouts, in which no device works."""
    after_s: float = 0.0
    """Between a step's rollouts and its training, in which no GPU works: pictures are measured."""
    join_s: float = 0.0
    """Of the ranks' gradients, once all ranks have theirs."""
    record_s: float = 0.0
    """Of writing a step's pictures beside the next step; the one after that waits for it."""


@dataclass(frozen=True)
class Sync:
    """How new weights reach samplers and decoders."""

    pack_s: float = 0.0
    """Rank 0 puts them into the object store of its node."""
    store_bytes: float = 0.0
    """What every node fetches that has one of `fetchers`."""
    fetchers: tuple[Worker, ...] = ()
    load_s: float = 0.0
    """A fetcher copies them from its node's object store into its model."""
    transfer_s: float = 0.0
    """From GPU to GPU, to all others; meanwhile the fetchers fetch."""


@dataclass(frozen=True)
class Cluster:
    """Workers, what they cost, and what is between them."""

    devices: Mapping[str, float]
    """Name to capacity."""
    samplers: tuple[Worker, ...]
    decoders: tuple[Worker, ...]
    rewards: Mapping[str, tuple[Worker, ...]]
    trainers: tuple[Worker, ...]
    costs: Costs
    sync: Sync = Sync()
    store_bytes_per_s: float = float("inf")
    """Out of one node's object store."""
    completion_bytes: float = 0.0
    """Of one image's tokens and log-probs."""
    picture_bytes: float = 0.0
    """Of one decoded image."""


@dataclass(frozen=True)
class Outcome:
    """What the steps came to, as means over those after the warm-up; seconds."""

    step_s: float
    rollout_s: float
    """From the first call to the last score, of the slowest rank."""
    sync_s: float
    """From the weights being packed to all workers having them."""
    train_s: float
    """From the end of the rollouts to the end of the update."""
    busy_s: Mapping[str, float]
    """`sample`, `decode`, `score/NAME`, `train`: seconds in which a worker had a call, summed over its pool."""
    store_out_bytes: float
    """Out of the node that sends most."""
    store_in_bytes: float
    """Into the node that receives most."""
    store_bytes: float
    """Between all nodes."""


@dataclass(eq=False)
class Job:
    """Work that a device does."""

    left: float
    threads: float
    done: Event


class Device:
    """Shared evenly: where more threads want to run than it has capacity for, each gets the same part of it."""

    def __init__(self, env: simpy.Environment, capacity: float):
        self.env, self.capacity = env, capacity
        self.jobs: list[Job] = []
        self.since = 0.0
        self.plan = 0

    def use(self, work: float, threads: float) -> Event:
        """Done when so many device-seconds are."""
        self._advance()
        job = Job(work, min(threads, self.capacity), self.env.event())
        self.jobs.append(job)
        self._replan()
        return job.done

    def _speed(self) -> float:
        """Of one thread."""
        return min(1.0, self.capacity / sum(job.threads for job in self.jobs))

    def _advance(self) -> None:
        passed = self.env.now - self.since
        self.since = self.env.now
        if passed and self.jobs:
            speed = self._speed()
            for job in self.jobs:
                job.left -= passed * speed * job.threads

    def _replan(self) -> None:
        """Wait for the next job to end; an earlier wait counts no more."""
        self.plan += 1
        if self.jobs:
            speed, plan = self._speed(), self.plan
            soonest = min(max(job.left, 0.0) / (speed * job.threads) for job in self.jobs)
            self.env.timeout(soonest).callbacks.append(lambda _: self._finish(plan))

    def _finish(self, plan: int) -> None:
        if plan != self.plan:
            return
        self._advance()
        speed = self._speed()
        ended = [job for job in self.jobs if job.left <= SOON * speed * job.threads]
        self.jobs = [job for job in self.jobs if job not in ended]
        self._replan()
        for job in ended:
            job.done.succeed()


@dataclass
class Result:
    """What a call returns, or rank 0 published."""

    node: int
    size: float
    """Bytes."""
    done: Event
    copies: dict[int, Event] = field(default_factory=dict)
    """Other nodes that have it, or wait for it."""


class Actor:
    """A worker with its queue."""

    def __init__(self, env: simpy.Environment, worker: Worker, device: Device):
        self.env, self.worker, self.device = env, worker, device
        self.turn = simpy.Resource(env)
        self.ready: dict[int, Event] = {}
        self.busy = 0.0

    def submit(self, caller: int, needs: Event | None, work: float) -> Event:
        """Queue a call that can start when `needs` is there; done when it returns."""
        self.ready[caller] = self.env.process(self._wait(self.ready.get(caller), needs))
        return self.env.process(self._run(self.ready[caller], work))

    def _wait(self, earlier: Event | None, needs: Event | None) -> Generator:
        for event in (earlier, needs):
            if event is not None:
                yield event

    def _run(self, ready: Event, work: float) -> Generator:
        yield ready
        with self.turn.request() as turn:
            yield turn
            started = self.env.now
            yield self.device.use(work, self.worker.threads)
            self.busy += self.env.now - started


class Simulation:
    """Some steps of a cluster.

    Args:
        cluster: what there is.
        work: per trainer rank, the chunks of its groups; the same in every step.
        staleness: 0: a step's rollouts wait for the update before; 1: they are drawn while that step is learnt from.
    """

    def __init__(self, cluster: Cluster, work: Sequence[Sequence[Chunk]], staleness: int = 0):
        self.cluster, self.work, self.staleness = cluster, work, staleness
        self.env = simpy.Environment()
        devices = {name: Device(self.env, capacity) for name, capacity in cluster.devices.items()}
        pools = {"sample": cluster.samplers, "decode": cluster.decoders, "train": cluster.trainers}
        pools |= {f"score/{name}": workers for name, workers in cluster.rewards.items()}
        self.actors = {
            stage: [Actor(self.env, worker, devices[worker.device]) for worker in workers]
            for stage, workers in pools.items()
        }
        self.links: dict[int, simpy.Resource] = defaultdict(lambda: simpy.Resource(self.env))
        self.sent: dict[int, float] = defaultdict(float)
        self.received: dict[int, float] = defaultdict(float)
        self.nodes = {worker.node for workers in pools.values() for worker in workers}
        self.walls: dict[str, float] = defaultdict(float)

    def run(self, steps: int = 4) -> Outcome:
        """Simulate `WARM_UP_STEPS` and so many more."""
        self.updated: list[Event] = [self.env.event() for _ in range(WARM_UP_STEPS + steps)]
        self.env.process(self._steps())
        self.env.run(self.updated[WARM_UP_STEPS - 1])
        before = self._so_far()
        self.env.run(self.updated[-1])
        passed = {name: (value - before.get(name, 0.0)) / steps for name, value in self._so_far().items()}
        return Outcome(
            step_s=passed["now"],
            rollout_s=passed["rollout"],
            sync_s=passed["sync"],
            train_s=passed["train"],
            busy_s={stage: passed[f"busy/{stage}"] for stage in self.actors},
            store_out_bytes=max(passed[f"out/{node}"] for node in self.nodes),
            store_in_bytes=max(passed[f"in/{node}"] for node in self.nodes),
            store_bytes=sum(passed[f"out/{node}"] for node in self.nodes),
        )

    def _so_far(self) -> dict[str, float]:
        """Everything that is counted."""
        counted = {"now": self.env.now, **{name: self.walls[name] for name in ("rollout", "sync", "train")}}
        counted |= {f"busy/{stage}": sum(actor.busy for actor in pool) for stage, pool in self.actors.items()}
        counted |= {f"out/{node}": self.sent[node] for node in self.nodes}
        return counted | {f"in/{node}": self.received[node] for node in self.nodes}

    def _steps(self) -> Generator:
        """What the trainer does, step after step (`ImageGRPOTrainer.collect`)."""
        costs, recorded, ahead = self.cluster.costs, self.env.timeout(0), None
        for updated in self.updated:
            if ahead is None:
                yield self.env.process(self._sync())
                yield self.env.process(self._rollouts())
            else:
                yield ahead
                yield self.env.process(self._sync())
            if self.staleness:
                ahead = self.env.process(self._rollouts())
            started = self.env.now
            yield recorded
            recorded = self.env.timeout(costs.record_s)
            yield self.env.timeout(costs.after_s)
            learning = zip(self.actors["train"], self.work, strict=True)
            yield self.env.all_of(
                [rank.submit(0, None, costs.train * sum(chunk.images for chunk in share)) for rank, share in learning]
            )
            yield self.env.timeout(costs.join_s)
            self.walls["train"] += self.env.now - started
            updated.succeed()

    def _rollouts(self) -> Generator:
        """All ranks' rollouts of a step."""
        started = self.env.now
        yield self.env.all_of([self.env.process(self._collect(rank)) for rank in range(len(self.work))])
        self.walls["rollout"] += self.env.now - started

    def _sync(self) -> Generator:
        """Rank 0 publishes the newest weights, and all workers take them over."""
        sync, started = self.cluster.sync, self.env.now
        yield self.env.timeout(sync.pack_s)
        weights = Result(self.cluster.trainers[0].node, sync.store_bytes, self.env.event().succeed())
        loads = [self.env.process(self._load(weights, worker)) for worker in sync.fetchers]
        yield self.env.all_of([*loads, self.env.timeout(sync.transfer_s)])
        self.walls["sync"] += self.env.now - started

    def _load(self, weights: Result, worker: Worker) -> Generator:
        yield self._fetch(weights, worker.node)
        yield self.env.timeout(self.cluster.sync.load_s)

    def _collect(self, rank: int) -> Generator:
        """One rank's rollouts: everything is submitted at once, then gathered in order."""
        cluster, costs, home = self.cluster, self.cluster.costs, self.cluster.trainers[rank].node
        yield self.env.timeout(costs.collect_s)
        gathered: list[tuple[Result, list[Event]]] = []
        for chunk in self.work[rank]:
            sampler = self._actor("sample", chunk.turn)
            tokens = Result(
                sampler.worker.node,
                chunk.images * cluster.completion_bytes,
                sampler.submit(rank, None, costs.sample_call + chunk.images * costs.sample),
            )
            for part in chunk.parts:
                decoder = self._actor("decode", part.turn)
                decoding = decoder.submit(rank, self._fetch(tokens, decoder.worker.node), part.images * costs.decode)
                pictures = Result(decoder.worker.node, part.images * cluster.picture_bytes, decoding)
                scores = []
                for piece in part.pieces:
                    for name, cost in costs.score.items():
                        scorer = self._actor(f"score/{name}", piece.turn)
                        needs = self._fetch(pictures, scorer.worker.node)
                        scores.append(scorer.submit(rank, needs, piece.images * cost))
                gathered.append((pictures, scores))
        for pictures, scores in gathered:
            yield self._fetch(pictures, home)
            yield self.env.all_of(scores)

    def _actor(self, stage: str, turn: int) -> Actor:
        return self.actors[stage][turn % len(self.actors[stage])]

    def _fetch(self, result: Result, node: int) -> Event:
        """Done when a node has a result."""
        if node == result.node or not result.size:
            return result.done
        if node not in result.copies:
            result.copies[node] = self.env.process(self._carry(result, node))
        return result.copies[node]

    def _carry(self, result: Result, node: int) -> Generator[Event, Any, None]:
        yield result.done
        with self.links[result.node].request() as turn:
            yield turn
            yield self.env.timeout(result.size / self.cluster.store_bytes_per_s)
        self.sent[result.node] += result.size
        self.received[node] += result.size
