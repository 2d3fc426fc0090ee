"""Rewards: the interface, the registry, PaddleOCR text rendering and the guard of the rest of the image.

Importing this package loads no model and no model library.
"""

from blip3o_grpo.rewards.conformance import check_reward, example_batch
from blip3o_grpo.rewards.registry import (
    available_rewards,
    build_reward,
    check_options,
    check_prompt,
    is_applicable,
    prompt_needs,
    reward_class,
)
from blip3o_grpo.rewards.types import Reward, RewardBatch, RewardError, explained_scores, score

__all__ = [
    "Reward",
    "RewardBatch",
    "RewardError",
    "available_rewards",
    "build_reward",
    "check_options",
    "check_prompt",
    "check_reward",
    "example_batch",
    "explained_scores",
    "is_applicable",
    "prompt_needs",
    "reward_class",
    "score",
]
