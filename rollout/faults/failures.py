"""Says what failed: the stage, the prompt, the image, and the error as the worker raised it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import ray
from PIL import Image

from blip3o_grpo.rollout.messages import ScoreFailure, writable
from blip3o_grpo.rollout.ray_seams import task_cause
from blip3o_grpo.rollout.types import Prompt, RolloutError


def check_version(expected: int, found: int | None, worker: str) -> None:
    """Refuse what was made with other weights than the newest.

    Raises:
        RolloutError: naming the worker and both versions.
    """
    if found != expected:
        raise RolloutError(f"{worker} works with policy version {found}, the newest is {expected}")


def first_cause(error: ray.exceptions.RayError, stage: str, prompts: Sequence[str]) -> Exception:
    """The error to raise for a failed call.

    While models load (no prompts), the worker's own error is the most telling one and is returned as it is; so is one
    that is already a `RolloutError`. All else becomes a `RolloutError` with the stage, the prompts and the traceback.
    """
    cause = task_cause(error)
    if isinstance(cause, RolloutError) or (isinstance(cause, Exception) and not prompts):
        return cause
    about = f", prompts {', '.join(repr(prompt) for prompt in prompts)}" if prompts else ""
    return RolloutError(f"stage {stage} failed{about}\n{error}")


def save_failure(
    folder: Path, reward: str, prompt: Prompt, step: int | str, images: np.ndarray, failure: ScoreFailure
) -> RolloutError:
    """Save a group's images `[G, H, W, 3]` side by side and its traceback; returns the error that names them."""
    folder.mkdir(parents=True, exist_ok=True)
    name = re.sub(r"[^\w.-]", "_", f"step-{step}-{reward}-{prompt.id}")[:120]
    picture = folder / f"{name}.png"
    Image.fromarray(np.concatenate(list(images), axis=1)).save(picture)
    (folder / f"{name}.txt").write_text(writable(f"{prompt.text}\n\n{failure.traceback}"), encoding="utf-8")
    return RolloutError(
        f"reward {reward!r} failed on prompt {prompt.text!r}: {failure.message} "
        f"(images: {picture}, traceback beside them; `on_error: skip` would drop such groups)"
    )
