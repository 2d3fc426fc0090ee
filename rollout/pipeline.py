"""Prompts in, scored groups out: submits a step's work to the pools and gathers what comes back.

Nothing here schedules: every call names the results it needs, and Ray starts it when they exist. So chunks are
painted while the next ones are sampled, and scored while the next ones are painted.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter, sleep
from typing import TYPE_CHECKING, Any

import ray
import torch
from ray.actor import ActorHandle

from configs import RunConfig
from policies import PromptEncoder, load_config
from rollout.board import Published
from rollout.calls import Call, first_finished, result, submit, submit_to_all
from rollout.errors import RolloutError
from rollout.failures import check_version
from rollout.joining import join
from rollout.messages import GroupRequest, PaintedChunk, SampledChunk, Snapshot, Work
from rollout.pools import Pools, images_per_chunk, start_pools
from rollout.scores import ScoreGatherer
from rollout.seeds import completion_seed, noise_seed
from rollout.types import Completion, Prompt, RolloutBatch, RolloutGroup
from rollout.weight_path import weight_path
from rollout.weight_sync import POLICY, pack_weights

if TYPE_CHECKING:
    from rollout.weight_transfer import WeightTransfer

BOARD_PATIENCE_S = 60
"""For the rank that published the weights to put them on a new board."""


@dataclass
class _Part:
    """Calls that paint one part of a chunk and score it."""

    painted: Call
    scores: dict[str, Call]


class RolloutPipeline:
    """Handle to a run's workers; can be pickled into Ray Train workers, all copies use the same workers.

    `launch` makes it, `sync_weights` must come before the first `collect`, `close` ends the workers.
    """

    def __init__(self, config: RunConfig, board: ActorHandle, pools: Pools, encoder: PromptEncoder):
        self._config = config
        self._board = board
        self._pools = pools
        self._encoder = encoder
        self._published = Published(board)
        self._path = weight_path(config)
        self._transfer: WeightTransfer | None = None

    @classmethod
    def launch(cls, config: RunConfig, policy_path: Path) -> RolloutPipeline:
        """Start all workers in the Ray cluster this process is connected to, and wait until their models are loaded.

        Raises:
            CheckpointError, RewardError, ImportError, ...: what a worker raised while it loaded its models.
            RolloutError: the cluster has too few GPUs, or a worker died.
        """
        policy_path = Path(policy_path).resolve()
        load_config(policy_path)
        encoder = PromptEncoder.from_pretrained(policy_path)
        board, pools = start_pools(config, policy_path)
        pipeline = cls(config, board, pools, encoder)
        try:
            loading = submit_to_all(pools, "ready")
            while loading:  # the first failure counts: a reward's missing library shows before the engine is up
                call = first_finished(pipeline._published, loading)
                loading.remove(call)
                result(pipeline._published, call)
        except BaseException:
            pipeline.close()
            raise
        return pipeline

    def connect_trainer(self) -> None:
        """Take this process for trainer rank 0, whose `sync_weights` go to the samplers by GPU where they can."""
        if self._path != "object_store":
            from rollout.weight_transfer import WeightTransfer  # imports vLLM

            self._transfer = WeightTransfer(
                self._path, self._pools["sample"], getattr(torch, self._config.policy.dtype)
            )

    def sync_weights(self, state_dict: Mapping[str, torch.Tensor], version: int) -> None:
        """Give the AR part's weights to all samplers and decoders and wait until every one of them has them.

        Args:
            state_dict: all of `Qwen3ForCausalLM`'s tensors.
            version: optimiser steps behind them; every later completion carries it.

        Raises:
            RolloutError: a worker reports another version, or failed.
        """
        snapshot = self._published.publish(POLICY, version, pack_weights(state_dict))
        fetching = submit_to_all({"decode": self._pools["decode"]}, "use", snapshot)
        if self._transfer is not None:
            self._transfer.send(state_dict, snapshot)  # samplers that got it have nothing to fetch
        fetching += submit_to_all({"sample": self._pools["sample"]}, "use", snapshot)
        for call in fetching:
            check_version(version, result(self._published, call), call.worker)

    def release_weights(self) -> None:
        """Keep the weights that this process published no longer than until another one publishes newer ones."""
        self._published.release(POLICY)

    def collect(
        self,
        prompts: Sequence[Prompt],
        step: int | str,
        *,
        group_size: int | None = None,
        num_diffusion_steps: int | None = None,
        explain: bool = False,
        turn: int = 0,
    ) -> RolloutBatch:
        """Sample, paint and score one group per prompt, with the weights of the last `sync_weights`.

        Args:
            prompts: one group each, returned in this order.
            step: training step, or a name such as "eval"; part of every seed.
            group_size: rollouts per prompt (default: the configuration's).
            num_diffusion_steps: Euler steps (default: the configuration's).
            explain: have the rewards that can explain their scores do so.
            turn: which worker gets the first chunk; trainer ranks, which collect at once, give their own numbers.

        Raises:
            PromptError: a prompt is longer than the policy's context.
            RolloutError: a stage failed, or a reward did and its `on_error` is `stop`.
        """
        num_steps = num_diffusion_steps or self._config.rollout.num_diffusion_steps
        return self.collect_each(prompts, step, (num_steps,), group_size=group_size, explain=explain, turn=turn)[0]

    def collect_each(
        self,
        prompts: Sequence[Prompt],
        step: int | str,
        num_diffusion_steps: Sequence[int],
        *,
        group_size: int | None = None,
        explain: bool = False,
        turn: int = 0,
    ) -> list[RolloutBatch]:
        """As `collect`, one batch per number of diffusion steps: the same completions from the same noise.

        All batches count the seconds of the one sampling; `wall` is that of all of them.
        """
        started = perf_counter()
        size = group_size or self._config.rollout.group_size
        requests = [self._request(prompt, step, size) for prompt in prompts]
        per_part = max(1, self._config.rollout.images_per_decode // size)
        snapshots = self._snapshots()
        chunks = [
            (chunk, index, submit(self._pools, "sample", index, "sample", chunk, snapshots[POLICY]))
            for index, chunk in enumerate(self._chunks(requests, size), start=turn)
        ]
        submitted = [
            [
                (chunk, sampling, self._submit(sampling, chunk, index, per_part, num_steps, snapshots, explain))
                for chunk, index, sampling in chunks
            ]
            for num_steps in num_diffusion_steps
        ]
        gathered = [self._gather(parts, per_part, step, snapshots, explain, turn) for parts in submitted]
        if self._path == "ipc":  # the trainer needs the GPU now
            for call in submit_to_all({"sample": self._pools["sample"]}, "sleep"):
                result(self._published, call)
        faults = ray.get(self._board.take_counts.remote())
        wall = perf_counter() - started
        return [
            RolloutBatch(tuple(groups), {**seconds, "wall": wall}, len(prompts) - len(groups), faults)
            for groups, seconds in gathered
        ]

    def _gather(
        self,
        submitted: Sequence[tuple[Sequence[GroupRequest], Call, Sequence[_Part]]],
        per_part: int,
        step: int | str,
        snapshots: Mapping[str, Snapshot],
        explain: bool,
        turn: int,
    ) -> tuple[list[RolloutGroup], dict[str, float]]:
        """Groups of submitted chunks in their order, and busy seconds per stage."""
        groups: list[RolloutGroup] = []
        seconds: dict[str, float] = defaultdict(float, sample=0.0, decode=0.0, score=0.0)
        version = snapshots[POLICY].version
        again = partial(self._score, turn=turn, snapshots=snapshots, explain=explain)
        scoring = ScoreGatherer(self._config, self._published, step, again, seconds)
        for chunk, sampling, parts in submitted:
            sampled: SampledChunk = result(self._published, sampling, chunk)
            self._account(sampled.work, "sample", version, seconds)
            for number, part in enumerate(parts):
                within = slice(number * per_part, (number + 1) * per_part)
                painted: PaintedChunk = result(self._published, part.painted, chunk[within])
                self._account(painted.work, "decode", version, seconds)
                scores = scoring.gather(part.scores, painted)
                groups += join(painted, sampled.completions[within], scores)
        return groups, seconds

    def sample(
        self, prompts: Sequence[Prompt], step: int | str, *, group_size: int | None = None
    ) -> list[tuple[Completion, ...]]:
        """Completions only, one group per prompt: the same ones that `collect` would paint and score."""
        size = group_size or self._config.rollout.group_size
        chunks = self._chunks([self._request(prompt, step, size) for prompt in prompts], size)
        weights = self._snapshots()[POLICY]
        calls = [submit(self._pools, "sample", index, "sample", chunk, weights) for index, chunk in enumerate(chunks)]
        sampled = [result(self._published, call, chunk) for call, chunk in zip(calls, chunks, strict=True)]
        return [group for chunk in sampled for group in chunk.completions]

    def needs_reference(self) -> bool:
        """Whether any reward compares with the starting policy's images."""
        stages = [f"score/{reward.name}" for reward in self._config.rewards]
        calls = [submit(self._pools, stage, 0, "needs_reference") for stage in stages]
        return any(result(self._published, call) for call in calls)

    def fit_rewards(self, groups: Sequence[RolloutGroup]) -> None:
        """Show the starting policy's images to the rewards that compare with them; all replicas get the state."""
        prompts = [group.prompt for group in groups for _ in group.rollouts]
        images = [rollout.image for group in groups for rollout in group.rollouts]
        for reward in self._config.rewards:
            fitting = submit(self._pools, f"score/{reward.name}", 0, "fit_reference", prompts, images)
            state = result(self._published, fitting)
            if state is not None:
                self._published.publish(reward.name, 0, state)

    def reward_state(self) -> dict[str, Any]:
        """Fitted state of every reward that has one, by reward name."""
        snapshots, _ = self._published.newest()
        return {name: ray.get(snapshot.boxed[0]) for name, snapshot in snapshots.items() if name != POLICY}

    def load_reward_state(self, state: Mapping[str, Any]) -> None:
        """Take over what `reward_state` returned in an earlier process."""
        for name, values in state.items():
            self._published.publish(name, 0, values)

    def worker_stats(self) -> dict[str, dict[str, Any]]:
        """Per worker: `busy_seconds` since its start, `peak_memory_gb`, `policy_version`."""
        calls = [
            submit(self._pools, stage, i, "stats") for stage, pool in self._pools.items() for i in range(len(pool))
        ]
        return {stats.pop("name"): stats for stats in [result(self._published, call) for call in calls]}

    def close(self) -> None:
        """End all workers."""
        for worker in (self._board, *(worker for workers in self._pools.values() for worker in workers)):
            ray.kill(worker)

    def _request(self, prompt: Prompt, step: int | str, size: int) -> GroupRequest:
        run = self._config
        noise = tuple(noise_seed(run.seed, step, prompt.id, member, run.rollout.noise) for member in range(size))
        seed = completion_seed(run.seed, step, prompt.id, 0)
        return GroupRequest(prompt, self._encoder.encode(prompt.text), size, seed, noise)

    def _chunks(self, requests: Sequence[GroupRequest], size: int) -> list[Sequence[GroupRequest]]:
        """Requests by engine call: the same number of completions whatever the group size, and no idle sampler."""
        per_chunk = max(1, min(images_per_chunk(self._config) // size, -(-len(requests) // len(self._pools["sample"]))))
        return [requests[start : start + per_chunk] for start in range(0, len(requests), per_chunk)]

    def _snapshots(self) -> dict[str, Snapshot]:
        for _ in range(BOARD_PATIENCE_S):
            snapshots, restarted = self._published.newest()
            if POLICY in snapshots:
                return snapshots
            if not restarted:
                break
            sleep(1)
        raise RolloutError("sync_weights must come first: the samplers have no weights yet")

    def _submit(
        self,
        sampling: Call,
        chunk: Sequence[GroupRequest],
        index: int,
        per_part: int,
        num_steps: int,
        snapshots: Mapping[str, Snapshot],
        explain: bool,
    ) -> list[_Part]:
        """Queue a sampled chunk through the other stages; workers are taken in turn, so every run assigns alike."""
        parts = []
        for number, start in enumerate(range(0, len(chunk), per_part)):
            turn = index * -(-len(chunk) // per_part) + number
            part = slice(start, start + per_part)
            painting = submit(self._pools, "decode", turn, "paint", sampling.ref, part, num_steps, snapshots[POLICY])
            scores = {
                reward.name: self._score(reward.name, painting.ref, turn, snapshots, explain)
                for reward in self._config.rewards
            }
            parts.append(_Part(painting, scores))
        return parts

    def _score(self, reward: str, painted: Any, turn: int, snapshots: Mapping[str, Snapshot], explain: bool) -> Call:
        return submit(self._pools, f"score/{reward}", turn, "score", painted, snapshots.get(reward), explain)

    def _account(self, work: Work, stage: str, version: int, seconds: dict[str, float]) -> None:
        check_version(version, work.policy_version, work.worker)
        seconds[stage] += work.seconds
