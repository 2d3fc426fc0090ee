"""Rollouts in TRL's form: one dictionary per sample, scores under `reward/NAME`, where reward functions find them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from blip3o_grpo.configs import RewardSection
from blip3o_grpo.rewards.types import partly_none
from blip3o_grpo.rollout import Completion, Prompt, RolloutBatch, RolloutError, RolloutGroup


def columns(
    prompts: Sequence[Prompt],
    batch: RolloutBatch,
    rewards: Sequence[RewardSection],
    masked: Callable[[Prompt], list[dict[str, Any]]],
) -> dict[str, list]:
    """A batch as flat lists: member after member, group after group, in the order of the prompts.

    Args:
        prompts: one for each group.
        batch: their rollouts, without the groups that were dropped (`on_error: skip`).
        rewards: of the run.
        masked: rows that keep the place of a dropped group.
    """
    groups = {group.prompt.id: group for group in batch.groups}
    rows = [
        row
        for prompt in prompts
        for row in (group_rows(groups[prompt.id], rewards) if prompt.id in groups else masked(prompt))
    ]
    return {key: [row[key] for row in rows] for key in rows[0]}


def group_rows(group: RolloutGroup, rewards: Sequence[RewardSection]) -> list[dict[str, Any]]:
    """One row per completion of a group; its scores are the means over its images.

    Raises:
        RolloutError: a reward scored only some of them, which TRL would take for zeros of the others.
    """
    for reward in rewards:
        reason = partly_none([rollout.rewards[reward.name] for rollout in group.rollouts], group.prompt.text)
        if reason:
            raise RolloutError(f"reward {reward.name!r} {reason}")
    each = group.noises_per_completion
    return [
        {
            "prompt_ids": group.prompt_ids,
            **_tokens(group, images[0].completion),
            **{f"reward/{reward.name}": _mean([image.rewards[reward.name] for image in images]) for reward in rewards},
        }
        for images in (group.rollouts[start : start + each] for start in range(0, len(group.rollouts), each))
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
