"""Prompts in, scored groups out: the handle to a run's workers, their weights and the state of their rewards.

A step is `sync_weights`, then `collect`, whose stages are in `flow.py`: sample, decode, score, gather. Advantages and
the update are the trainer's (`blip3o_grpo.training.trainer`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from time import perf_counter, sleep
from typing import TYPE_CHECKING, Any

import ray
import torch
from ray.actor import ActorHandle

from blip3o_grpo.configs import RunConfig
from blip3o_grpo.configs.head import FlowGRPOSection
from blip3o_grpo.policies import PromptEncoder, load_config
from blip3o_grpo.policies.blip3o_next.tied import shared_once
from blip3o_grpo.policies.kinds import KINDS
from blip3o_grpo.rollout.faults.board import Published
from blip3o_grpo.rollout.faults.calls import first_finished, result, submit, submit_to_all
from blip3o_grpo.rollout.faults.failures import check_version
from blip3o_grpo.rollout.flow import Flow
from blip3o_grpo.rollout.messages import Denoising, Draw, Snapshot
from blip3o_grpo.rollout.placement.pools import Pools, start_pools
from blip3o_grpo.rollout.placement.shared import SharedGpus
from blip3o_grpo.rollout.requests import Requests
from blip3o_grpo.rollout.types import Completion, Prompt, RolloutBatch, RolloutError, RolloutGroup
from blip3o_grpo.rollout.weights.packing import POLICY, pack_weights
from blip3o_grpo.rollout.weights.path import weight_path

if TYPE_CHECKING:
    from blip3o_grpo.rollout.weights.transfer import WeightTransfer

BOARD_PATIENCE_S = 60
"""For the rank that published the weights to put them on a new board."""


class RolloutPipeline:
    """Handle to a run's workers; can be pickled into Ray Train workers, all copies use the same workers.

    `launch` makes it, `sync_weights` must come before the first `collect`, `close` ends the workers.
    """

    def __init__(
        self,
        config: RunConfig,
        board: ActorHandle,
        pools: Pools,
        encoder: PromptEncoder,
        tied: bool = False,
        shared: SharedGpus | None = None,
    ):
        self._config = config
        self._board = board
        self._pools = pools
        self._shared = shared
        self._tied = tied
        self._requests = Requests(config, encoder)
        self._published = Published(board)
        self._path = weight_path(config)
        self._transfer: WeightTransfer | None = None
        self._dtype: torch.dtype = getattr(torch, config.policy.dtype)

    @classmethod
    def launch(cls, config: RunConfig, policy_path: Path) -> RolloutPipeline:
        """Start all workers in the Ray cluster this process is connected to, and wait until their models are loaded.

        Raises:
            CheckpointError, RewardError, ImportError, ...: what a worker raised while it loaded its models.
            RolloutError: the cluster has too few GPUs, or a worker died.
        """
        policy_path = Path(policy_path).resolve()
        kind = KINDS[config.policy.type]
        tied = kind.samples_tokens and load_config(policy_path).tie_word_embeddings
        encoder = kind.prompts(policy_path)
        board, pools, shared = start_pools(config, policy_path)
        pipeline = cls(config, board, pools, encoder, tied, shared)
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
            from blip3o_grpo.rollout.weights.transfer import WeightTransfer  # imports vLLM

            self._transfer = WeightTransfer(self._path, self._pools["sample"], self._dtype)

    def sync_weights(
        self,
        state_dict: Mapping[str, torch.Tensor] | None,
        version: int,
        head: Mapping[str, torch.Tensor] | None = None,
    ) -> None:
        """Give the policy's weights to all samplers and decoders and wait until every one of them has them.

        Unblocks `collect`, whose calls all name these weights from now on.

        Args:
            state_dict: all of `Qwen3ForCausalLM`'s tensors; of tied embeddings one or both. None: those that this
                process published last.
            version: optimiser steps behind them; every later completion carries it.
            head: the diffusion head's, by `connector.NAME` and so on. None: those of the checkpoint.

        Raises:
            RolloutError: a worker reports another version, or failed.
        """
        if state_dict is None:
            weights: Any = self._published.own(POLICY).boxed[0]
        else:
            state_dict = shared_once(state_dict) if self._tied else state_dict
            weights = pack_weights(state_dict, self._dtype)
        painter = [] if head is None else [pack_weights(head, self._dtype)]
        snapshot = self._published.publish(POLICY, version, weights, *painter)
        fetching = submit_to_all({"decode": self._pools["decode"]}, "use", snapshot)
        if self._transfer is not None and state_dict is not None:
            self._transfer.send(state_dict, snapshot)  # samplers that got it have nothing to fetch
        fetching += submit_to_all({"sample": self._pools["sample"]}, "use", snapshot)
        for call in fetching:
            check_version(version, result(self._published, call), call.worker)

    def hand_over(self) -> None:
        """Training starts: ranks publish the weights, so these are kept no longer than until the first do; where ranks
        share GPUs with workers, there is room for them."""
        self._published.release(POLICY)
        if self._shared is not None:
            self._shared.leave_to_ranks()

    def collect(
        self,
        prompts: Sequence[Prompt],
        step: int | str,
        *,
        group_size: int | None = None,
        num_diffusion_steps: int | None = None,
        draw: Draw | None = None,
        explain: bool = False,
        turn: int = 0,
        progress: Callable[[int], None] | None = None,
        train: bool = False,
    ) -> RolloutBatch:
        """Sample, decode and score one group per prompt, with the weights of the last `sync_weights`.

        Consumes prompts, waits for the slowest group, and returns all of them in the prompts' order.

        Args:
            prompts: one group each, returned in this order.
            step: optimiser step that learns from them, from 1, or a name such as "eval"; part of every seed.
            group_size: rollouts per prompt (default: the configuration's).
            num_diffusion_steps: Euler steps (default: the configuration's).
            draw: how tokens are drawn (default: as in training); what is cut by it must not be trained on.
            explain: have the rewards that can explain their scores do so.
            turn: which of those who collect at once this is; trainer ranks give their own numbers.
            progress: is told how many groups are done, whenever more are.
            train: paint as it is learnt from: `rollout.noises_per_completion` images of each completion, with latents
                and noisy steps where the head learns.

        Raises:
            PromptError: a prompt is longer than the policy's context.
            RolloutError: a stage failed, or a reward did and its `on_error` is `stop`.
        """
        rollout = self._config.rollout
        method = self._config.head.method if train and "head" in self._config.learn else None
        denoising = Denoising(
            num_diffusion_steps or rollout.num_diffusion_steps,
            rollout.guidance_interval,
            method if isinstance(method, FlowGRPOSection) else None,
            keep_latents=method is not None,
        )
        return self.collect_each(
            prompts,
            step,
            (denoising,),
            group_size=group_size,
            draw=draw,
            explain=explain,
            turn=turn,
            progress=progress,
            noises=rollout.noises_per_completion if train else 1,
        )[0]

    def collect_each(
        self,
        prompts: Sequence[Prompt],
        step: int | str,
        denoisings: Sequence[Denoising],
        *,
        group_size: int | None = None,
        draw: Draw | None = None,
        explain: bool = False,
        turn: int = 0,
        progress: Callable[[int], None] | None = None,
        noises: int = 1,
    ) -> list[RolloutBatch]:
        """As `collect`, one batch per way of painting: the same completions from the same noise, or `noises` of them.

        All batches count the seconds of the one sampling; `wall` is that of all of them.
        """
        started = perf_counter()
        size = group_size or self._config.rollout.group_size
        requests = self._requests.make(prompts, step, size, draw, noises)
        flow = self._flow(step, explain, turn)
        sampled = flow.sample(requests)
        decoded = [flow.decode(sampled, denoising) for denoising in denoisings]
        scored = [flow.score(chunks) for chunks in decoded]  # nothing has waited for anything up to here
        gathered = [
            flow.gather(chunks, partial(_more, progress, index * len(prompts)) if progress else None)
            for index, chunks in enumerate(scored)
        ]
        if self._path == "ipc":  # the trainer needs the GPU now
            for call in submit_to_all({"sample": self._pools["sample"]}, "sleep"):
                result(self._published, call)
        faults = ray.get(self._board.take_counts.remote())
        wall = perf_counter() - started
        return [
            RolloutBatch(tuple(groups), {**seconds, "wall": wall}, len(prompts) - len(groups), faults)
            for groups, seconds in gathered
        ]

    def sample(
        self, prompts: Sequence[Prompt], step: int | str, *, group_size: int | None = None
    ) -> list[tuple[Completion, ...]]:
        """Completions only, one group per prompt: the same ones that `collect` would decode and score."""
        size = group_size or self._config.rollout.group_size
        chunks = self._flow(step).sample(self._requests.make(prompts, step, size))
        sampled = [result(self._published, chunk.sampled, chunk.requests) for chunk in chunks]
        return [group for chunk in sampled for group in chunk.completions]

    def needs_reference(self) -> bool:
        """Whether any reward compares with the starting policy's images."""
        stages = [f"score/{reward.name}" for reward in self._config.rewards]
        calls = [submit(self._pools, stage, 0, "needs_reference") for stage in stages]
        return any(result(self._published, call) for call in calls)

    def fit_rewards(self, groups: Sequence[RolloutGroup], step: int | str) -> tuple[RolloutGroup, ...]:
        """Show the starting policy's images to the rewards that compare with them; all replicas get the state.

        Args:
            groups: what `collect` returned for `step`.

        Returns:
            The groups with the scores that these rewards had not given yet.

        Raises:
            RolloutError: a reward failed and its `on_error` is `stop`.
        """
        prompts = [group.prompt for group in groups for _ in group.rollouts]
        images = [rollout.image for group in groups for rollout in group.rollouts]
        fitted = []
        for reward in self._config.rewards:
            fitting = submit(self._pools, f"score/{reward.name}", 0, "fit_reference", prompts, images)
            state = result(self._published, fitting)
            if state is not None:
                self._published.publish(reward.name, 0, state)
                fitted.append(reward)
        return tuple(self._flow(step).score_again(groups, fitted))

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
        if self._shared is not None:
            self._shared.close()

    def _flow(self, step: int | str, explain: bool = False, turn: int = 0) -> Flow:
        return Flow(self._config, self._pools, self._published, self._requests, self._snapshots(), step, explain, turn)

    def _snapshots(self) -> dict[str, Snapshot]:
        for _ in range(BOARD_PATIENCE_S):
            snapshots, restarted = self._published.newest()
            if POLICY in snapshots:
                return snapshots
            if not restarted:
                break
            sleep(1)
        raise RolloutError("sync_weights must come first: the samplers have no weights yet")


def _more(progress: Callable[[int], None], before: int, done: int) -> None:
    """Tell of the groups of one batch after those of the batches before it."""
    progress(before + done)
