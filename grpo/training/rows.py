"""Rollouts in TRL's form: one dictionary per sample, scores under `reward/NAME`, where reward functions find them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from blip3o_grpo.configs import RewardSection
from blip3o_grpo.rewards.types import partly_none
from blip3o_grpo.rollout import Completion, Prompt, RolloutError, RolloutGroup
from blip3o_grpo.training.draws import Draws
from blip3o_grpo.training.selection import group_rewards, spread_subset


def columns(
    draws: Draws,
    rewards: Sequence[RewardSection],
    masked: Callable[[Prompt], list[dict[str, Any]]],
    subset_size: int | None = None,
) -> dict[str, list]:
    """What a rank learns from as flat lists: member after member, group after group, new groups first.

    Args:
        draws: of the step; groups that were dropped (`on_error: skip`) are missing.
        rewards: of the run.
        masked: rows that keep the place of a dropped group.
        subset_size: so many members of each group; None: all.
    """
    drawn = {group.prompt.id: group for group in draws.batch.groups}
    asked = {prompt.id for prompt in draws.prompts}
    others = iter([group for group in draws.batch.groups if group.prompt.id not in asked])
    replaced = {old.prompt_id for old in draws.batch.discarded if old.replaced}
    groups = [
        next(others) if prompt.id in replaced else drawn.get(prompt.id, prompt)  # itself: it was dropped
        for prompt in draws.prompts
    ]
    rows = [
        row
        for group in [*groups, *draws.replayed]
        for row in (masked(group) if isinstance(group, Prompt) else group_rows(group, rewards, subset_size))
    ]
    return {key: [row[key] for row in rows] for key in rows[0]}


def group_rows(
    group: RolloutGroup, rewards: Sequence[RewardSection], subset_size: int | None = None
) -> list[dict[str, Any]]:
    """One row per completion of a group; its scores are the means over its images.

    Raises:
        RolloutError: a reward scored only some of them, which TRL would take for zeros of the others.
    """
    for reward in rewards:
        reason = partly_none([rollout.rewards[reward.name] for rollout in group.rollouts], group.prompt.text)
        if reason:
            raise RolloutError(f"reward {reward.name!r} {reason}")
    each = group.noises_per_completion
    members = range(len(group.rollouts) // each)
    if subset_size is not None:
        members = spread_subset(group_rewards(group, rewards), subset_size)
    return [
        {
            "prompt_ids": group.prompt_ids,
            **_tokens(group, images[0].completion),
            **{f"reward/{reward.name}": _mean([image.rewards[reward.name] for image in images]) for reward in rewards},
        }
        for images in (group.rollouts[member * each : (member + 1) * each] for member in members)
    ]


def _tokens(group: RolloutGroup, completion: Completion) -> dict[str, Any]:
    """What TRL is told of a completion; where the policy samples no tokens, one that is masked, since TRL wants one."""
    ids, logprobs = completion.token_ids.tolist(), completion.logprobs.tolist()
    if not ids:
        return {"completion_ids": group.prompt_ids[-1:], "logprobs": [0.0], "env_mask": [0]}
    return {"completion_ids": ids, "logprobs": logprobs, "env_mask": [1] * len(ids)}


def _mean(scores: Sequence[float | None]) -> float | None:
    """Of one completion's images, which all have a score or none."""
    return scores[0] if len(scores) == 1 or scores[0] is None else sum(scores) / len(scores)


def masked_row(prompt_ids: list[int], token: int, length: int, rewards: Sequence[RewardSection]) -> dict[str, Any]:
    """A sample that keeps its place and counts for nothing: every token masked, no reward."""
    return {
        "prompt_ids": prompt_ids,
        "completion_ids": [token] * length,
        "logprobs": [0.0] * length,
        "env_mask": [0] * length,
        **{f"reward/{reward.name}": None for reward in rewards},
    }


def reward_column(name: str) -> Callable[..., list[float | None]]:
    """A TRL reward function that returns the scores the pipeline already computed."""

    def column(**fields: Any) -> list[float | None]:
        return fields[f"reward/{name}"]

    column.__name__ = name
    return column
