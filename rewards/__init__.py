"""Rewards: the interface, the registry, PaddleOCR text rendering and the guard of the rest of the image.

Importing this package loads no model and no model library.
"""

from blip3o_grpo.rewards.conformance import CheckedReward, check_reward, example_batch
from blip3o_grpo.rewards.hooks import RewardBase, TagTable, group_reward
from blip3o_grpo.rewards.registry import available_rewards, build_reward, declared, find_reward, load_reward
from blip3o_grpo.rewards.spec import LoadedReward, RewardSpec, adapt, check_options
from blip3o_grpo.rewards.types import Reward, RewardBatch, RewardError, score

__all__ = [
    "CheckedReward",
    "LoadedReward",
    "Reward",
    "RewardBase",
    "RewardBatch",
    "RewardError",
    "RewardSpec",
    "TagTable",
    "adapt",
    "available_rewards",
    "build_reward",
    "check_options",
    "check_reward",
    "declared",
    "example_batch",
    "find_reward",
    "group_reward",
    "load_reward",
    "score",
]
