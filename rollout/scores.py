"""Scores of painted images: gathered reward by reward; a group that a reward fails on is dropped, or stops the run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from configs import RewardSection
from rollout.board import Published
from rollout.calls import Call, result
from rollout.errors import RolloutError, WorkerLostError
from rollout.failures import save_failure
from rollout.joining import Columns
from rollout.messages import PaintedChunk, ScoredChunk, ScoreFailure, Work


@dataclass(frozen=True)
class ScoreGatherer:
    """Waits for the scores of one step."""

    rewards: Sequence[RewardSection]
    failures: Path
    """Folder for the images and the traceback of a reward that stops the run."""
    board: Published
    step: int | str
    submit: Callable[[str, PaintedChunk], Call]
    """Has a reward, by name, score a chunk (again)."""
    seconds: dict[str, float]
    """Busy seconds; those of `score` are added up here."""

    def gather(self, calls: Mapping[str, Call], painted: PaintedChunk) -> list[Columns | None]:
        """Scores of every group of a painted chunk, from one call for each reward; None: the group is dropped.

        Raises:
            RolloutError: a reward failed and its `on_error` is `stop`.
        """
        columns: list[Columns | None] = [Columns({}, {}) for _ in painted.requests]
        for reward in self.rewards:
            scored = self._scored(reward, calls[reward.name], painted)
            self.seconds["score"] += scored.work.seconds
            for index, scores in enumerate(scored.scores):
                if not isinstance(scores, ScoreFailure):
                    if columns[index] is not None:
                        columns[index].scores[reward.name] = scores
                        if scored.explanations:
                            columns[index].explanations[reward.name] = scored.explanations[index]
                elif reward.on_error == "skip":
                    columns[index] = None
                else:
                    prompt, images = painted.requests[index].prompt, painted.images[index]
                    raise save_failure(self.failures, reward.name, prompt, self.step, images, scores)
        return columns

    def _scored(self, reward: RewardSection, call: Call, painted: PaintedChunk) -> ScoredChunk:
        try:
            return result(self.board, call, painted.requests)
        except WorkerLostError as error:
            if len(painted.requests) == 1:
                return _failed(painted, error)
            if reward.on_error == "stop":
                raise
            # One of the groups did it. Each by itself shows which, and the others keep their scores.
            singles = [
                PaintedChunk((request,), (images,), painted.work)
                for request, images in zip(painted.requests, painted.images, strict=True)
            ]
            calls = [self.submit(reward.name, single) for single in singles]
            return _joined([self._scored(reward, *pair) for pair in zip(calls, singles, strict=True)])
        except RolloutError as error:
            return _failed(painted, error)


def _failed(painted: PaintedChunk, error: RolloutError) -> ScoredChunk:
    return ScoredChunk((ScoreFailure(str(error), str(error)),) * len(painted.requests), Work("", 0.0, None))


def _joined(chunks: list[ScoredChunk]) -> ScoredChunk:
    """Of chunks with one group each; a failed group has its failure in place of explanations."""
    explained = any(chunk.explanations for chunk in chunks)
    return ScoredChunk(
        tuple(chunk.scores[0] for chunk in chunks),
        Work("", sum(chunk.work.seconds for chunk in chunks), None),
        tuple((chunk.explanations or chunk.scores)[0] for chunk in chunks) if explained else (),
    )
