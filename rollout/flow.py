"""The work of one step through the pools: sample, decode, score, and gather what comes back.

Nothing here schedules: every call names the results it needs, and Ray starts it when they exist. So chunks are
decoded while the next ones are sampled, and scored while the next ones are decoded.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from blip3o_grpo.configs import RewardSection, RunConfig
from blip3o_grpo.rollout.faults.board import Published
from blip3o_grpo.rollout.faults.calls import Call, result, submit
from blip3o_grpo.rollout.faults.failures import check_version
from blip3o_grpo.rollout.joining import join, with_scores
from blip3o_grpo.rollout.messages import DecodedChunk, GroupRequest, SampledChunk, Snapshot, Work
from blip3o_grpo.rollout.placement.pools import Pools
from blip3o_grpo.rollout.requests import Requests
from blip3o_grpo.rollout.scores import ScoreGatherer
from blip3o_grpo.rollout.types import RolloutGroup
from blip3o_grpo.rollout.weights.packing import POLICY

Sampled = list[tuple[Sequence[GroupRequest], Call]]
"""Chunks of requests, and the calls that sample them."""


@dataclass(frozen=True)
class _Part:
    """Calls that decode one part of a chunk and score it."""

    within: slice
    """Its groups in the chunk."""
    decoded: Call
    scores: dict[str, Call]


@dataclass(frozen=True)
class _Chunk:
    requests: Sequence[GroupRequest]
    sampled: Call
    parts: list[_Part]


@dataclass(frozen=True)
class Flow:
    """One step's calls."""

    config: RunConfig
    pools: Pools
    board: Published
    requests: Requests
    snapshots: Mapping[str, Snapshot]
    """What every call works with: weights, and state of rewards."""
    step: int | str
    explain: bool = False
    turn: int = 0
    """Which worker gets the first chunk."""

    def sample(self, requests: Sequence[GroupRequest]) -> Sampled:
        """Queue groups of one size."""
        weights = self.snapshots[POLICY]
        return [
            (chunk, submit(self.pools, "sample", turn, "sample", chunk, weights))
            for turn, chunk in enumerate(self.requests.chunks(requests), start=self.turn)
        ]

    def decode_and_score(self, sampled: Sampled, num_steps: int) -> list[_Chunk]:
        """Queue what was sampled through the other stages; workers are taken in turn, so every run assigns alike."""
        return [
            _Chunk(chunk, call, self._parts(chunk, call, turn, num_steps))
            for turn, (chunk, call) in enumerate(sampled, start=self.turn)
        ]

    def gather(self, chunks: Sequence[_Chunk]) -> tuple[list[RolloutGroup], dict[str, float]]:
        """Groups of queued chunks in their order, and busy seconds per stage.

        Raises:
            RolloutError: a stage failed, or a reward did and its `on_error` is `stop`.
        """
        groups: list[RolloutGroup] = []
        seconds: dict[str, float] = defaultdict(float, sample=0.0, decode=0.0, score=0.0)
        scoring = self._gatherer(self.config.rewards, seconds)
        for chunk in chunks:
            sampled: SampledChunk = result(self.board, chunk.sampled, chunk.requests)
            self._account(sampled.work, "sample", seconds)
            for part in chunk.parts:
                decoded: DecodedChunk = result(self.board, part.decoded, chunk.requests[part.within])
                self._account(decoded.work, "decode", seconds)
                groups += join(decoded, sampled.completions[part.within], scoring.gather(part.scores, decoded))
        return groups, seconds

    def score_again(self, groups: Sequence[RolloutGroup], rewards: Sequence[RewardSection]) -> list[RolloutGroup]:
        """The groups with new scores of these rewards; those that a reward with `on_error: skip` fails on are dropped.

        Raises:
            RolloutError: a reward failed and its `on_error` is `stop`.
        """
        prompts = [group.prompt for group in groups]
        requests = self.requests.make(prompts, self.step, len(groups[0].rollouts))
        pixels = [np.stack([rollout.image for rollout in group.rollouts]) for group in groups]
        decoded = [
            DecodedChunk(tuple(requests[part]), tuple(pixels[part]), Work("", 0.0, None))
            for part in self.requests.parts(requests)
        ]
        calls = [
            {reward.name: self._score(reward.name, part, turn) for reward in rewards}
            for turn, part in enumerate(decoded, start=self.turn)
        ]
        scoring = self._gatherer(rewards, defaultdict(float))
        return with_scores(
            groups, [columns for pair in zip(calls, decoded, strict=True) for columns in scoring.gather(*pair)]
        )

    def _parts(self, chunk: Sequence[GroupRequest], sampling: Call, index: int, num_steps: int) -> list[_Part]:
        parts = []
        slices = self.requests.parts(chunk)
        weights = self.snapshots[POLICY]
        for turn, part in enumerate(slices, start=index * len(slices)):
            decoding = submit(self.pools, "decode", turn, "decode", sampling.ref, part, num_steps, weights)
            scores = {reward.name: self._score(reward.name, decoding.ref, turn) for reward in self.config.rewards}
            parts.append(_Part(part, decoding, scores))
        return parts

    def _score(self, reward: str, decoded: Any, turn: int) -> Call:
        state = self.snapshots.get(reward)
        return submit(self.pools, f"score/{reward}", turn, "score", decoded, state, self.explain)

    def _gatherer(self, rewards: Sequence[RewardSection], seconds: dict[str, float]) -> ScoreGatherer:
        def again(reward: str, decoded: DecodedChunk) -> Call:
            return self._score(reward, decoded, self.turn)

        failures = Path(self.config.run_dir) / "failures"
        return ScoreGatherer(rewards, failures, self.board, self.step, again, seconds)

    def _account(self, work: Work, stage: str, seconds: dict[str, float]) -> None:
        check_version(self.snapshots[POLICY].version, work.policy_version, work.worker)
        seconds[stage] += work.seconds
