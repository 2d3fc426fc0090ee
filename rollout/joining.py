"""Joins what the stages return into rollout groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from blip3o_grpo.rollout.messages import DecodedChunk
from blip3o_grpo.rollout.types import Completion, Rollout, RolloutGroup


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


def join(
    decoded: DecodedChunk, completions: Sequence[Sequence[Completion]], scores: Sequence[Columns | None]
) -> list[RolloutGroup]:
    """Groups of a decoded chunk, without those that have no scores."""
    groups = []
    for request, images, group, columns in zip(decoded.requests, decoded.images, completions, scores, strict=True):
        if columns is None:
            continue
        rollouts = tuple(
            Rollout(completion, images[member], *columns.of(member)) for member, completion in enumerate(group)
        )
        groups.append(RolloutGroup(request.prompt, request.prompt_ids, rollouts))
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
