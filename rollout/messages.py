"""What the stages hand to each other inside a step: a chunk of groups, one record per stage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from blip3o_grpo.rollout.types import Completion, Prompt

if TYPE_CHECKING:
    import ray

    from blip3o_grpo.configs.head import FlowGRPOSection

BOARD = "board"
"""Name of the run's board actor."""


def writable(text: str) -> str:
    """The text of somebody's error as UTF-8 can say it: half of a surrogate pair becomes its escape, such as `\\ud800`.

    Files, terminals and Ray's own messages between processes all refuse such halves.
    """
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def is_writable(text: str) -> bool:
    """Whether UTF-8 can say it."""
    return writable(text) == text


class Denoising(NamedTuple):
    """How images are painted, where one pool of decoders paints in several ways."""

    num_steps: int
    """Euler steps."""
    guidance_interval: tuple[float, float]
    """Noise levels between which guidance acts."""
    stochastic: FlowGRPOSection | None = None
    """Which steps add noise; None: none does."""
    keep_latents: bool = False
    """Whether the head learns from these images."""


@dataclass(frozen=True)
class Draw:
    """How image tokens are drawn from the logits; training draws from all of them."""

    temperature: float
    top_p: float = 1.0
    top_k: int = 0
    """0: all."""


@dataclass(frozen=True)
class GroupRequest:
    """One group to draw."""

    prompt: Prompt
    prompt_ids: list[int]
    group_size: int
    seed: int
    """Of member 0; member k's is `seed + k`."""
    noise_seeds: tuple[int, ...]
    """One per image: those of member 0, then those of member 1, and so on, equally many."""
    draw: Draw | None = None
    """None: as in training."""

    @property
    def noises_per_completion(self) -> int:
        """Images of each member."""
        return len(self.noise_seeds) // self.group_size


@dataclass(frozen=True)
class Snapshot:
    """Published values (weights or a reward's state). A worker that has others, or none yet, fetches these first."""

    version: int
    boxed: tuple[ray.ObjectRef, ...]
    """References; inside a tuple Ray passes them on instead of resolving them for every call. Of a policy, the AR
    part's weights and, where it learns, those of the diffusion head; else one."""

    @property
    def id(self) -> str:
        """Differs between any two publications."""
        return "".join([str(self.version), *(ref.hex() for ref in self.boxed)])


@dataclass(frozen=True)
class Work:
    """Who did a chunk, with which weights, and how long it was busy."""

    worker: str
    seconds: float
    policy_version: int | None


@dataclass(frozen=True)
class SampledChunk:
    """Image tokens of a chunk of groups."""

    requests: tuple[GroupRequest, ...]
    completions: tuple[tuple[Completion, ...], ...]
    work: Work


@dataclass(frozen=True)
class DecodedChunk:
    """Images of (a part of) a sampled chunk."""

    requests: tuple[GroupRequest, ...]
    images: tuple[np.ndarray, ...]
    """Per group `[G, H, W, 3]` uint8, RGB; G images, those of one completion side by side."""
    work: Work
    latents: tuple[np.ndarray, ...] = ()
    """Per group `[G, S, C, h, w]` float32, if they were asked for (`Rollout.latents`)."""


@dataclass(frozen=True)
class ScoreFailure:
    """A reward raised, or returned no valid scores, for one group."""

    message: str
    traceback: str


@dataclass(frozen=True)
class ScoredChunk:
    """Scores of a decoded chunk by one reward."""

    scores: tuple[list[float | None] | ScoreFailure, ...]
    work: Work
    explanations: tuple[list[Mapping[str, Any] | None] | ScoreFailure, ...] = ()
    """Per group one for each image, as far as the reward explains; empty unless they were asked for."""


@dataclass(frozen=True)
class Verdict:
    """What the board tells a worker that begins a call."""

    wait_s: float = 0.0
    """Back-off before the work."""
    refusal: str | None = None
    """Why the call must not be tried again."""
    limits_s: Mapping[str, float | None] = field(default_factory=dict)
    """Stage to the seconds after which the worker is replaced; None: never."""
