"""Prompts in, scored groups out: submits a step's work to the pools and gathers what comes back.

Nothing here schedules: every call names the results it needs, and Ray starts it when they exist. So chunks are
painted while the next ones are sampled, and scored while the next ones are painted.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import ray
import torch
from ray.actor import ActorHandle

from configs import RunConfig
from policies import PromptEncoder, load_config
from rollout.errors import RolloutError
from rollout.failures import check_version, first_cause, save_failure
from rollout.joining import Columns, join
from rollout.messages import GroupRequest, PaintedChunk, SampledChunk, ScoredChunk, ScoreFailure, Snapshot, Work
from rollout.pools import Pools, images_per_chunk, start_pools
from rollout.seeds import completion_seed, noise_seed
from rollout.types import Completion, Prompt, RolloutBatch, RolloutGroup
from rollout.weight_sync import POLICY, pack_weights, publish


@dataclass
class _Part:
    """References to one painted part of a chunk and its scores."""

    painted: ray.ObjectRef
    scores: dict[str, ray.ObjectRef]


class RolloutPipeline:
    """Handle to a run's workers; can be pickled into Ray Train workers, all copies use the same workers.

    `launch` makes it, `sync_weights` must come before the first `collect`, `close` ends the workers.
    """

    def __init__(self, config: RunConfig, board: ActorHandle, pools: Pools, encoder: PromptEncoder):
        self._config = config
        self._board = board
        self._pools = pools
        self._encoder = encoder

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
            loading = {worker.ready.remote(): stage for stage, workers in pools.items() for worker in workers}
            while loading:  # the first failure counts: a reward's missing library shows before the engine is up
                (ref, *_), _ = ray.wait(list(loading))
                pipeline._get(ref, loading.pop(ref))
        except BaseException:
            pipeline.close()
            raise
        return pipeline

    def sync_weights(self, state_dict: Mapping[str, torch.Tensor], version: int) -> None:
        """Give the AR part's weights to all samplers and decoders and wait until every one of them has them.

        Args:
            state_dict: all of `Qwen3ForCausalLM`'s tensors.
            version: optimiser steps behind them; every later completion carries it.

        Raises:
            RolloutError: a worker reports another version, or failed.
        """
        snapshot = publish(self._board, POLICY, version, pack_weights(state_dict))
        workers = [(stage, worker) for stage in ("sample", "decode") for worker in self._pools[stage]]
        for (stage, _), ref in zip(workers, [worker.use.remote(snapshot) for _, worker in workers], strict=True):
            check_version(version, self._get(ref, stage), f"a worker of stage {stage}")

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
        chunks = []
        for index, chunk in enumerate(self._chunks(requests, size), start=turn):
            sampled = self._worker("sample", index).sample.remote(chunk, snapshots[POLICY])
            chunks.append((chunk, index, sampled))
        submitted = [
            [
                (chunk, sampled, self._submit(sampled, chunk, index, per_part, num_steps, snapshots, explain))
                for chunk, index, sampled in chunks
            ]
            for num_steps in num_diffusion_steps
        ]
        gathered = [self._gather(parts, per_part, step, snapshots[POLICY].version) for parts in submitted]
        wall = perf_counter() - started
        return [
            RolloutBatch(tuple(groups), {**seconds, "wall": wall}, len(prompts) - len(groups))
            for groups, seconds in gathered
        ]

    def _gather(
        self,
        submitted: Sequence[tuple[Sequence[GroupRequest], ray.ObjectRef, Sequence[_Part]]],
        per_part: int,
        step: int | str,
        version: int,
    ) -> tuple[list[RolloutGroup], dict[str, float]]:
        """Groups of submitted chunks in their order, and busy seconds per stage."""
        groups: list[RolloutGroup] = []
        seconds: dict[str, float] = defaultdict(float, sample=0.0, decode=0.0, score=0.0)
        for chunk, sampled_ref, parts in submitted:
            sampled: SampledChunk = self._get(sampled_ref, "sample", chunk)
            self._account(sampled.work, "sample", version, seconds)
            for number, part in enumerate(parts):
                within = slice(number * per_part, (number + 1) * per_part)
                painted: PaintedChunk = self._get(part.painted, "decode", chunk[within])
                self._account(painted.work, "decode", version, seconds)
                scores = self._gather_scores(part, painted, step, seconds)
                groups += join(painted, sampled.completions[within], scores)
        return groups, seconds

    def sample(
        self, prompts: Sequence[Prompt], step: int | str, *, group_size: int | None = None
    ) -> list[tuple[Completion, ...]]:
        """Completions only, one group per prompt: the same ones that `collect` would paint and score."""
        size = group_size or self._config.rollout.group_size
        chunks = self._chunks([self._request(prompt, step, size) for prompt in prompts], size)
        weights = self._snapshots()[POLICY]
        refs = [self._worker("sample", index).sample.remote(chunk, weights) for index, chunk in enumerate(chunks)]
        sampled = [self._get(ref, "sample", chunk) for ref, chunk in zip(refs, chunks, strict=True)]
        return [group for chunk in sampled for group in chunk.completions]

    def needs_reference(self) -> bool:
        """Whether any reward compares with the starting policy's images."""
        first = {f"score/{reward.name}": self._pools[f"score/{reward.name}"][0] for reward in self._config.rewards}
        return any(self._get(worker.needs_reference.remote(), stage) for stage, worker in first.items())

    def fit_rewards(self, groups: Sequence[RolloutGroup]) -> None:
        """Show the starting policy's images to the rewards that compare with them; all replicas get the state."""
        prompts = [group.prompt for group in groups for _ in group.rollouts]
        images = [rollout.image for group in groups for rollout in group.rollouts]
        for reward in self._config.rewards:
            first = self._pools[f"score/{reward.name}"][0]
            state = self._get(first.fit_reference.remote(prompts, images), f"score/{reward.name}")
            if state is not None:
                publish(self._board, reward.name, 0, state)

    def reward_state(self) -> dict[str, Any]:
        """Fitted state of every reward that has one, by reward name."""
        snapshots = self._get(self._board.newest.remote(), "board")
        return {name: ray.get(snapshot.boxed[0]) for name, snapshot in snapshots.items() if name != POLICY}

    def load_reward_state(self, state: Mapping[str, Any]) -> None:
        """Take over what `reward_state` returned in an earlier process."""
        for name, values in state.items():
            publish(self._board, name, 0, values)

    def worker_stats(self) -> dict[str, dict[str, Any]]:
        """Per worker: `busy_seconds` since its start, `peak_memory_gb`, `policy_version`."""
        refs = [worker.stats.remote() for workers in self._pools.values() for worker in workers]
        return {stats.pop("name"): stats for stats in self._get(refs, "stats")}

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
        snapshots = self._get(self._board.newest.remote(), "board")
        if POLICY not in snapshots:
            raise RolloutError("sync_weights must come first: the samplers have no weights yet")
        return snapshots

    def _submit(
        self,
        sampled: ray.ObjectRef,
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
            painted = self._worker("decode", turn).paint.remote(sampled, part, num_steps, snapshots[POLICY])
            scores = {
                reward.name: self._worker(f"score/{reward.name}", turn).score.remote(
                    painted, snapshots.get(reward.name), explain
                )
                for reward in self._config.rewards
            }
            parts.append(_Part(painted, scores))
        return parts

    def _worker(self, stage: str, turn: int) -> ActorHandle:
        return self._pools[stage][turn % len(self._pools[stage])]

    def _gather_scores(
        self, part: _Part, painted: PaintedChunk, step: int | str, seconds: dict[str, float]
    ) -> list[Columns | None]:
        """Scores by reward name for every group of a part; None: the group is dropped."""
        columns: list[Columns | None] = [Columns({}, {}) for _ in painted.requests]
        for reward in self._config.rewards:
            try:
                scored: ScoredChunk = self._get(part.scores[reward.name], f"score/{reward.name}", painted.requests)
                seconds["score"] += scored.work.seconds
                results, explanations = scored.scores, scored.explanations
            except RolloutError as error:  # the worker itself died, also after Ray's retries
                results = (ScoreFailure(str(error), str(error)),) * len(painted.requests)
            for index, result in enumerate(results):
                if not isinstance(result, ScoreFailure):
                    if columns[index] is not None:
                        columns[index].scores[reward.name] = result
                        if explanations:
                            columns[index].explanations[reward.name] = explanations[index]
                elif reward.on_error == "skip":
                    columns[index] = None
                else:
                    folder = Path(self._config.run_dir) / "failures"
                    raise save_failure(
                        folder, reward.name, painted.requests[index].prompt, step, painted.images[index], result
                    )
        return columns

    def _account(self, work: Work, stage: str, version: int, seconds: dict[str, float]) -> None:
        check_version(version, work.policy_version, work.worker)
        seconds[stage] += work.seconds

    def _get(self, refs: Any, stage: str, requests: Sequence[GroupRequest] = ()) -> Any:
        try:
            return ray.get(refs)
        except ray.exceptions.RayError as error:
            raise first_cause(error, stage, [request.prompt.text for request in requests]) from error
