"""A batch of rollouts as one safetensors file: images, tokens and log-probs as they are, the rest as its JSON header.

For rollouts that were drawn ahead of a checkpoint: the weights that drew them are gone when the run resumes from it.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from blip3o_grpo.configs.strict_json import parse_json
from blip3o_grpo.rollout.types import Completion, Discarded, Prompt, Rollout, RolloutBatch, RolloutGroup


def save_batch(path: Path, batch: RolloutBatch, step: int) -> None:
    """Write the rollouts that `step` is to learn from; what rewards say about their scores is left out."""
    rollouts = [rollout for group in batch.groups for rollout in group.rollouts]
    groups = [
        {
            "prompt": [group.prompt.id, group.prompt.text, group.prompt.metadata],
            "prompt_ids": list(map(int, group.prompt_ids)),
            "noises": group.noises_per_completion,
            "rollouts": [
                [rollout.completion.policy_version, rollout.completion.seed, rollout.rewards]
                for rollout in group.rollouts
            ],
        }
        for group in batch.groups
    ]
    about = {
        "step": step,
        "groups": groups,
        "seconds": batch.seconds,
        "skipped_groups": batch.skipped_groups,
        "discarded": [[group.prompt_id, list(group.rewards), group.replaced] for group in batch.discarded],
        "faults": batch.faults,
    }
    arrays = {
        "token_ids": [rollout.completion.token_ids for rollout in rollouts],
        "logprobs": [rollout.completion.logprobs for rollout in rollouts],
        "images": [rollout.image for rollout in rollouts],
    }
    stacked = {name: np.stack(values) if values else np.zeros(0) for name, values in arrays.items()}
    save_file(stacked, path, {"batch": json.dumps(about)})


def load_batch(path: Path) -> tuple[int, RolloutBatch]:
    """The step and its rollouts, as `save_batch` wrote them."""
    with safe_open(path, framework="np") as file:
        about = parse_json(file.metadata()["batch"])
        arrays = {name: file.get_tensor(name) for name in ("token_ids", "logprobs", "images")}
    groups, place = [], 0
    for group in about["groups"]:
        rollouts = []
        for version, seed, rewards in group["rollouts"]:
            token_ids, logprobs, image = (arrays[name][place] for name in ("token_ids", "logprobs", "images"))
            rollouts.append(Rollout(Completion(token_ids, logprobs, version, seed), image, rewards))
            place += 1
        noises = group.get("noises", 1)  # which older checkpoints do not tell
        groups.append(RolloutGroup(Prompt(*group["prompt"]), group["prompt_ids"], tuple(rollouts), noises))
    discarded = tuple(
        Discarded(name, tuple(rewards), replaced) for name, rewards, replaced in about.get("discarded", [])
    )
    return about["step"], RolloutBatch(
        tuple(groups), about["seconds"], about["skipped_groups"], about["faults"], discarded
    )
