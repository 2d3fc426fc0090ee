"""The records that flow through a GRPO step: prompt, completion, rollout, group, batch.

They are the contract between the sampler, the decoder, the rewards and the trainer; nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np


class RolloutError(ValueError):
    """A stage failed, or handed on something that cannot be trained on. Never turned into a reward."""


class WorkerLostError(RolloutError):
    """A call was lost with its worker, which died or hung, more often than `faults.retries` allows."""


@dataclass(frozen=True)
class Prompt:
    """One caption to draw, with whatever its file says about it."""

    id: str
    """Stable name: seeds and records hang on it."""
    text: str
    metadata: dict = field(default_factory=dict)
    """All other keys of its JSONL line, e.g. `target_text` or GenEval's `include`."""


@dataclass(frozen=True)
class Completion:
    """The image tokens sampled for one prompt."""

    token_ids: np.ndarray
    """`[T]` int32, vocabulary ids (all of them image tokens)."""
    logprobs: np.ndarray
    """`[T]` float32, log-probability (nats) of each token under the distribution it was drawn from."""
    policy_version: int
    """Optimiser steps behind the weights that drew it."""
    seed: int


@dataclass(frozen=True)
class Rollout:
    """A completion, its image and its scores."""

    completion: Completion
    image: np.ndarray
    """`[H, W, 3]` uint8, RGB."""
    rewards: dict[str, float | None]
    """Reward name to score; None: the reward does not apply to this prompt."""
    explanations: dict[str, Mapping] = field(default_factory=dict)
    """Reward name to what it says about its score, if that was asked for and the reward has something to say."""
    latents: np.ndarray | None = None
    """`[S, C, h, w]` float32, the latents that the image was painted through, of which the last is decoded: those after
    the steps that added noise, and the last; None: nobody asked for them."""


@dataclass(frozen=True)
class RolloutGroup:
    """The siblings of one prompt, in member order."""

    prompt: Prompt
    prompt_ids: list[int]
    """`[P]` token ids ending in `<im_start><S0>`."""
    rollouts: tuple[Rollout, ...]
    """Images of the same completion side by side."""
    noises_per_completion: int = 1
    """How many of them there are for each."""


@dataclass(frozen=True)
class Discarded:
    """What is kept of a group that is not learnt from."""

    prompt_id: str
    rewards: tuple[dict[str, float | None], ...]
    """Of each of its images."""
    replaced: bool
    """Whether a group that is learnt from has its place."""


@dataclass(frozen=True)
class RolloutBatch:
    """What one call of `RolloutPipeline.collect` returns: groups in the order of the prompts."""

    groups: tuple[RolloutGroup, ...]
    seconds: dict[str, float]
    """Busy seconds per stage (`sample`, `decode`, `score`, of each reward `score/NAME`; each summed over all workers),
    and `wall`."""
    skipped_groups: int = 0
    """Groups dropped because a reward with `on_error: skip` failed on them."""
    faults: dict[str, int] = field(default_factory=dict)
    """What happened to the run's workers, of all stages, since any rank's last batch: `retries` of calls, `restarts`
    of workers, `timeouts`."""
    discarded: tuple[Discarded, ...] = ()
    """Groups that were drawn and are not learnt from: `rollout.dynamic_sampling` found others, or none that differ."""
