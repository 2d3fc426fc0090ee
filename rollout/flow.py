"""The work of one step through the pools: sample, decode, score, and gather what comes back.

Nothing here schedules: every call names the results it needs, and Ray starts it when they exist. So chunks are
decoded while the next ones are sampled, and scored while the next ones are decoded:

    stage    consumes                          waits for                     unblocks
    sample   requests, the newest weights      a sampler                     decode of its chunk
    decode   a part of a sampled chunk         its chunk's sampling          score of its part, by every reward
    score    a decoded part                    its part's decoding           gather
    gather   completions, images and scores    all of them, in their order   advantages and the update (the trainer)

Chunks and parts are how groups travel together (`Requests`); no order or count of workers changes a result.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from blip3o_grpo.configs import RewardSection, RunConfig
from blip3o_grpo.rollout.faults.board import Published
from blip3o_grpo.rollout.faults.calls import Call, result, submit
from blip3o_grpo.rollout.faults.failures import check_version
from blip3o_grpo.rollout.messages import DecodedChunk, Denoising, GroupRequest, SampledChunk, Snapshot, Work
from blip3o_grpo.rollout.placement.pools import Pools
from blip3o_grpo.rollout.requests import Requests
from blip3o_grpo.rollout.scores import ScoreGatherer, join, with_scores
from blip3o_grpo.rollout.types import RolloutGroup
from blip3o_grpo.rollout.weights.packing import POLICY


@dataclass(frozen=True)
class Part:
    """Groups that are decoded in one call."""

    within: slice
    """Its groups in the chunk."""
    turn: int
    """Which worker of a pool is to decode and to score it."""
    decoded: Call
    scores: Mapping[str, Call] = field(default_factory=dict)
    """One for each reward, by name."""


@dataclass(frozen=True)
class Chunk:
    """Groups that are sampled in one call, and the calls that follow from it."""

    requests: Sequence[GroupRequest]
    turn: int
    """Which worker of the pool is to sample it."""
    sampled: Call
    parts: tuple[Part, ...] = ()


@dataclass(frozen=True)
class Flow:
    """One step's calls; each stage queues them and returns at once, `gather` waits. Workers are taken in turn, so every
    run assigns alike."""

    config: RunConfig
    pools: Pools
    board: Published
    requests: Requests
    snapshots: Mapping[str, Snapshot]
    """What every call works with: weights, and state of rewards."""
    step: int | str
    explain: bool = False
    turn: int = 0
    """Which of those who collect at once this is, such as trainer ranks: each begins with the worker after the last one
    of the caller before, so that no worker gets two chunks while another has none."""

    def sample(self, requests: Sequence[GroupRequest]) -> list[Chunk]:
        """Queue groups of one size. A chunk waits for nothing but its sampler, which fetches the weights if it lacks
        them; every one that is done can be decoded."""
        weights, chunks = self.snapshots[POLICY], self.requests.chunks(requests)
        return [
            Chunk(chunk, turn, submit(self.pools, "sample", turn, "sample", chunk, weights))
            for turn, chunk in enumerate(chunks, start=self.turn * len(chunks))
        ]

    def decode(self, chunks: Sequence[Chunk], denoising: Denoising) -> list[Chunk]:
        """Queue the parts of sampled chunks. A part waits for its chunk; every one that is
        done can be scored."""
        weights = self.snapshots[POLICY]
        decoded = []
        for chunk in chunks:
            slices = self.requests.parts(chunk.requests)
            parts = [
                Part(
                    part,
                    turn,
                    submit(self.pools, "decode", turn, "decode", chunk.sampled.ref, part, denoising, weights),
                )
                for turn, part in enumerate(slices, start=chunk.turn * len(slices))
            ]
            decoded.append(replace(chunk, parts=tuple(parts)))
        return decoded

    def score(self, chunks: Sequence[Chunk]) -> list[Chunk]:
        """Queue decoded parts with every reward. A score waits for its part only, not for other rewards."""
        return [replace(chunk, parts=tuple(self._scored(part) for part in chunk.parts)) for chunk in chunks]

    def gather(
        self, chunks: Sequence[Chunk], progress: Callable[[int], None] | None = None
    ) -> tuple[list[RolloutGroup], dict[str, float]]:
        """Wait for queued chunks: their groups in the order of the requests, and busy seconds per stage.

        `progress` is told how many groups are done or dropped, whenever more are.

        Raises:
            RolloutError: a stage failed, or a reward did and its `on_error` is `stop`.
        """
        groups: list[RolloutGroup] = []
        done = 0
        seconds: dict[str, float] = defaultdict(float, sample=0.0, decode=0.0, score=0.0)
        scoring = self._gatherer(self.config.rewards, seconds)
        for chunk in chunks:
            sampled: SampledChunk = result(self.board, chunk.sampled, chunk.requests)
            self._account(sampled.work, "sample", seconds)
            for part in chunk.parts:
                decoded: DecodedChunk = result(self.board, part.decoded, chunk.requests[part.within])
                self._account(decoded.work, "decode", seconds)
                groups += join(decoded, sampled.completions[part.within], scoring.gather(part.scores, decoded))
                done += len(decoded.requests)
                if progress is not None:
                    progress(done)
        return groups, seconds

    def score_again(self, groups: Sequence[RolloutGroup], rewards: Sequence[RewardSection]) -> list[RolloutGroup]:
        """The groups with new scores of these rewards; those that a reward with `on_error: skip` fails on are dropped.

        Raises:
            RolloutError: a reward failed and its `on_error` is `stop`.
        """
        prompts = [group.prompt for group in groups]
        each = groups[0].noises_per_completion
        requests = self.requests.make(prompts, self.step, len(groups[0].rollouts) // each, noises=each)
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

    def _scored(self, part: Part) -> Part:
        return replace(
            part,
            scores={r.name: self._score(r.name, part.decoded.ref, part.turn) for r in self.config.rewards},
        )

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
