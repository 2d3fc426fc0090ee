"""Scores of decoded images: gathered reward by reward, and joined with completions and images into groups.

A group that a reward fails on is dropped, or stops the run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from blip3o_grpo.configs import RewardSection
from blip3o_grpo.rewards.types import partly_none
from blip3o_grpo.rollout.faults.board import Published
from blip3o_grpo.rollout.faults.calls import Call, result
from blip3o_grpo.rollout.faults.failures import save_failure
from blip3o_grpo.rollout.messages import DecodedChunk, ScoredChunk, ScoreFailure, Work
from blip3o_grpo.rollout.types import Completion, Prompt, Rollout, RolloutError, RolloutGroup, WorkerLostError


@dataclass
class Columns:
    """A group's scores and explanations by reward name, in member order."""

    scores: dict[str, list[float | None]]
    explanations: dict[str, list[Mapping[str, Any] | None]]

    def of(self, member: int) -> tuple[dict[str, float | None], dict[str, Mapping[str, Any]]]:
        """One member's scores, and the explanations there are."""
        explanations = {name: column[member] for name, column in self.explanations.items()}
        return (
            {name: column[member] for name, column in self.scores.items()},
            {name: explanation for name, explanation in explanations.items() if explanation is not None},
        )


@dataclass(frozen=True)
class ScoreGatherer:
    """Waits for the scores of one step."""

    rewards: Sequence[RewardSection]
    failures: Path
    """Folder for the images and the traceback of a reward that stops the run."""
    board: Published
    step: int | str
    submit: Callable[[str, DecodedChunk], Call]
    """Has a reward, by name, score a chunk (again)."""
    seconds: dict[str, float]
    """Busy seconds; those of `score` and of `score/NAME`, one reward's, are added up here."""

    def gather(self, calls: Mapping[str, Call], decoded: DecodedChunk) -> list[Columns | None]:
        """Scores of every group of a decoded chunk, from one call for each reward; None: the group is dropped.

        A reward that scores only some members of a group has failed on it.

        Raises:
            RolloutError: a reward failed and its `on_error` is `stop`.
        """
        columns: list[Columns | None] = [Columns({}, {}) for _ in decoded.requests]
        for reward in self.rewards:
            scored = self._scored(reward, calls[reward.name], decoded)
            for name in ("score", f"score/{reward.name}"):
                self.seconds[name] = self.seconds.get(name, 0.0) + scored.work.seconds
            for index, (scores, request) in enumerate(zip(scored.scores, decoded.requests, strict=True)):
                scores = _whole(scores, request.prompt)
                if not isinstance(scores, ScoreFailure):
                    if columns[index] is not None:
                        columns[index].scores[reward.name] = scores
                        if scored.explanations:
                            columns[index].explanations[reward.name] = scored.explanations[index]
                elif reward.on_error == "skip":
                    columns[index] = None
                else:
                    images = decoded.images[index]
                    raise save_failure(self.failures, reward.name, request.prompt, self.step, images, scores)
        return columns

    def _scored(self, reward: RewardSection, call: Call, decoded: DecodedChunk) -> ScoredChunk:
        try:
            return result(self.board, call, decoded.requests)
        except WorkerLostError as error:
            if len(decoded.requests) == 1:
                return _failed(decoded, error)
            if reward.on_error == "stop":
                raise
            # One of the groups did it. Each by itself shows which, and the others keep their scores.
            singles = [
                DecodedChunk((request,), (images,), decoded.work)
                for request, images in zip(decoded.requests, decoded.images, strict=True)
            ]
            calls = [self.submit(reward.name, single) for single in singles]
            return _joined([self._scored(reward, *pair) for pair in zip(calls, singles, strict=True)])
        except RolloutError as error:
            return _failed(decoded, error)


def _whole(scores: list[float | None] | ScoreFailure, prompt: Prompt) -> list[float | None] | ScoreFailure:
    """The scores of a group, unless they are those of some members only."""
    reason = None if isinstance(scores, ScoreFailure) else partly_none(scores, prompt.text)
    return ScoreFailure(f"it {reason}", f"it {reason}") if reason else scores


def _failed(decoded: DecodedChunk, error: RolloutError) -> ScoredChunk:
    return ScoredChunk((ScoreFailure(str(error), str(error)),) * len(decoded.requests), Work("", 0.0, None))


def _joined(chunks: list[ScoredChunk]) -> ScoredChunk:
    """Of chunks with one group each; a failed group has its failure in place of explanations."""
    explained = any(chunk.explanations for chunk in chunks)
    return ScoredChunk(
        tuple(chunk.scores[0] for chunk in chunks),
        Work("", sum(chunk.work.seconds for chunk in chunks), None),
        tuple((chunk.explanations or chunk.scores)[0] for chunk in chunks) if explained else (),
    )


def join(
    decoded: DecodedChunk, completions: Sequence[Sequence[Completion]], scores: Sequence[Columns | None]
) -> list[RolloutGroup]:
    """Groups of a decoded chunk, without those that have no scores."""
    groups = []
    all_latents = decoded.latents or (None,) * len(decoded.images)
    for request, images, latents, group, columns in zip(
        decoded.requests, decoded.images, all_latents, completions, scores, strict=True
    ):
        if columns is None:
            continue
        each = request.noises_per_completion
        rollouts = tuple(
            Rollout(
                group[index // each], image, *columns.of(index), latents=None if latents is None else latents[index]
            )
            for index, image in enumerate(images)
        )
        groups.append(RolloutGroup(request.prompt, request.prompt_ids, rollouts, each))
    return groups


def with_scores(groups: Sequence[RolloutGroup], scores: Sequence[Columns | None]) -> list[RolloutGroup]:
    """The groups with these scores on top of theirs, without those that have None."""
    return [
        replace(group, rollouts=tuple(_scored(rollout, columns, k) for k, rollout in enumerate(group.rollouts)))
        for group, columns in zip(groups, scores, strict=True)
        if columns is not None
    ]


def _scored(rollout: Rollout, columns: Columns, member: int) -> Rollout:
    rewards, explanations = columns.of(member)
    return replace(
        rollout, rewards={**rollout.rewards, **rewards}, explanations={**rollout.explanations, **explanations}
    )
