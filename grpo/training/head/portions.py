"""A batch of rollouts as the head learns from it: rewards by completion and noise, and images in portions."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from blip3o_grpo.configs import RunConfig
from blip3o_grpo.rollout import RolloutBatch, RolloutGroup
from blip3o_grpo.rollout.seeds import learning_seed, noise_seed


@dataclass(frozen=True)
class Images:
    """Some images of a batch and what is learnt from them; B of C completions, in order."""

    prompt_ids: list[list[int]]  # of each completion
    tokens: torch.Tensor  # [C, T] vocabulary ids
    which: torch.Tensor  # [B], the completion of each image
    latents: torch.Tensor  # [B, S, C, h, w]
    advantages: torch.Tensor  # [B]
    noise_seeds: list[int]  # of each image
    learning_seeds: list[int]

    def to(self, device: torch.device) -> Images:
        """The same, with what a loss computes with on the device."""
        return replace(self, latents=self.latents.to(device), advantages=self.advantages.to(device))


def group_rewards(batch: RolloutBatch, config: RunConfig) -> list[np.ndarray]:
    """Weighted sum of every image's rewards, `[G, K]` for each group; NaN where none applies."""
    totals = []
    for group in batch.groups:
        sums = []
        for rollout in group.rollouts:
            trained = [reward for reward in config.rewards if reward.weight]
            known = [(r.weight, score) for r in trained if (score := rollout.rewards[r.name]) is not None]
            sums.append(sum(weight * score for weight, score in known) if known else math.nan)
        totals.append(np.array(sums, dtype=np.float64).reshape(-1, group.noises_per_completion))
    return totals


def portions(
    groups: Sequence[RolloutGroup], advantages: Sequence[np.ndarray], step: int, config: RunConfig, size: int
) -> Iterator[Images]:
    """Images of completions with something to learn from, at most `size` at once (at least one).

    Those of one completion stay together where so many fit.

    Args:
        groups: of this rank.
        advantages: `[G, K]` of each.
        step: that the rollouts were drawn for.
        config: the run, for the seeds.
        size: images.
    """
    portion: list[Images] = []
    most = max(size, 1)
    for group, found in zip(groups, advantages, strict=True):
        each = group.noises_per_completion
        for member in range(len(found)):
            if not found[member].any():
                continue  # its gradient is 0
            for first in range(0, each, most):
                part = _images(group, member, slice(first, first + most), found[member], step, config)
                if portion and sum(len(one.which) for one in portion) + len(part.which) > most:
                    yield _together(portion)
                    portion = []
                portion.append(part)
    if portion:
        yield _together(portion)


def _images(
    group: RolloutGroup, member: int, part: slice, advantages: np.ndarray, step: int, config: RunConfig
) -> Images:
    """Those of one completion, `part` of them; `advantages` `[K]` are of all."""
    each, seed, noise = group.noises_per_completion, config.seed, config.rollout.noise
    draws = range(each)[part]
    rollouts = [group.rollouts[member * each + k] for k in draws]
    return Images(
        prompt_ids=[list(group.prompt_ids)],
        tokens=torch.from_numpy(rollouts[0].completion.token_ids.astype(np.int64))[None],
        which=torch.zeros(len(draws), dtype=torch.long),
        latents=torch.from_numpy(np.stack([rollout.latents for rollout in rollouts])),
        advantages=torch.from_numpy(advantages[part]).float(),
        noise_seeds=[noise_seed(seed, step, group.prompt.id, member, noise, k, each) for k in draws],
        # The same for all images of a completion: advantages that sum to 0 cancel what the loss says without rewards.
        learning_seeds=[learning_seed(seed, step, group.prompt.id, member)] * len(draws),
    )


def _together(parts: Sequence[Images]) -> Images:
    return Images(
        prompt_ids=[ids for part in parts for ids in part.prompt_ids],
        tokens=torch.cat([part.tokens for part in parts]),
        which=torch.cat([part.which + number for number, part in enumerate(parts)]),
        latents=torch.cat([part.latents for part in parts]),
        advantages=torch.cat([part.advantages for part in parts]),
        noise_seeds=[seed for part in parts for seed in part.noise_seeds],
        learning_seeds=[seed for part in parts for seed in part.learning_seeds],
    )
