"""What a reward is: the batch it gets, the protocol it follows, and the check on what it returns.

Nothing here imports a model library, so configurations and prompts can be checked before anything loads.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, Protocol, runtime_checkable

import numpy as np


class RewardError(ValueError):
    """A reward is unknown, misconfigured, or returned something that is not one score per image."""


@dataclass(frozen=True)
class RewardBatch:
    """Images to score, with what was asked for. All three lists have the same length, which may be 0."""

    images: Sequence[np.ndarray]
    """Each `[H, W, 3]` uint8, RGB; read-only for the reward."""
    prompts: Sequence[str]
    metadata: Sequence[Mapping[str, Any]]
    """What else the prompt file says about each prompt."""

    def __post_init__(self) -> None:
        if not len(self.images) == len(self.prompts) == len(self.metadata):
            raise RewardError(
                f"a reward batch needs equally many images, prompts and metadata; "
                f"got {len(self.images)}, {len(self.prompts)} and {len(self.metadata)}"
            )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, part: slice) -> RewardBatch:
        return RewardBatch(self.images[part], self.prompts[part], self.metadata[part])


@runtime_checkable
class Reward(Protocol):
    """Scores images. Models load in `__init__`, never at import.

    More that a class may offer, each optional, stands in `blip3o_grpo.rewards.RewardBase` with its defaults. A plain
    function `(images, prompts, metadata, **options)` is a reward as well.
    """

    def __call__(self, batch: RewardBatch) -> list[float | None]:
        """One finite score per image, higher is better; None where the reward does not apply to the prompt."""
        ...


def score(reward: Reward, batch: RewardBatch, name: str | None = None) -> list[float | None]:
    """Call a reward and check what comes back. A failure is never turned into a number.

    Args:
        reward: the reward.
        batch: what to score.
        name: how to call the reward in messages (default: its class name).

    Returns:
        One float or None per image, as Python floats.

    Raises:
        RewardError: wrong number of scores, a score that is no number, or a NaN or infinite one.
        Exception: whatever the reward itself raises.
    """
    name = name or type(reward).__name__
    return checked_scores(name, reward(batch), batch)


def partly_none(scores: Sequence[float | None], prompt: str) -> str | None:
    """What is wrong where a reward scores some members of a prompt's group and abstains on others; else None.

    TRL would count a missing score as 0 beside the other rewards, so None must be for a whole group.
    """
    missing = [index for index, value in enumerate(scores) if value is None]
    if not missing or len(missing) == len(scores):
        return None
    return (
        f"scores some images of the prompt {prompt!r} and gives None for others (image {missing[0]}); None is for a "
        "prompt it does not apply to, so for all images of it"
    )


def checked_scores(name: str, scores: Any, batch: RewardBatch) -> list[float | None]:
    """What a reward returned for a batch, as floats and None; raises RewardError as `score`."""
    if not isinstance(scores, list):
        hint = " (`.tolist()` makes one of an array)" if isinstance(scores, np.ndarray) else ""
        raise RewardError(f"reward {name!r} returned {type(scores).__name__} instead of a list of floats{hint}")
    if len(scores) != len(batch):
        raise RewardError(f"reward {name!r} returned {len(scores)} scores for {len(batch)} images")
    return [_checked(name, value, prompt) for value, prompt in zip(scores, batch.prompts, strict=True)]


def _checked(name: str, value: Any, prompt: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, Real):
        raise RewardError(
            f"reward {name!r} returned {value!r} ({type(value).__name__}) for prompt {prompt!r}, no float"
        )
    try:
        number = float(value)
    except OverflowError:  # a whole number of more than 308 digits
        number = math.inf
    if not math.isfinite(number):
        raise RewardError(f"reward {name!r} returned {number} for prompt {prompt!r}")
    return number
