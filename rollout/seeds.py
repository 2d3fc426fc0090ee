"""Seeds of completions and of diffusion noise, derived from names and not from any order of events.

The same run seed, step, prompt and member give the same seed on any number of workers and after a resume.
"""

from __future__ import annotations

import hashlib
from typing import Literal

SEED_BYTES = 6  # below 2^53, so a seed survives JSON


def completion_seed(run_seed: int, step: int | str, prompt_id: str, member: int) -> int:
    """Seed of one completion: the group's seed plus the member's index.

    vLLM gives the `n` children of a request the request's seed plus their index; this is the same rule, so a whole
    group is one request. `step` is the optimiser step that it is drawn for, from 1, or a name such as "eval".
    """
    return _hash("completion", run_seed, _moment(step), prompt_id) + member


def noise_seed(
    run_seed: int,
    step: int | str,
    prompt_id: str,
    member: int,
    noise: Literal["shared", "independent"],
    draw: int = 0,
    draws: int = 1,
) -> int:
    """Seed of one image's diffusion noise, the member's `draw` of `draws`; with `shared`, all members of a group get
    the same ones."""
    first = _hash("noise", run_seed, _moment(step), prompt_id)
    return first + (member * draws if noise == "independent" else 0) + draw


def learning_seed(run_seed: int, step: int | str, prompt_id: str, member: int) -> int:
    """Seed of what the head's loss draws for the images of one completion."""
    return _hash("learning", run_seed, _moment(step), prompt_id) + member


def _moment(step: int | str) -> int | str:
    """What seeds hash: the optimiser steps behind the weights, one fewer than the step's number."""
    return step - 1 if isinstance(step, int) else step


def _hash(*names: int | str) -> int:
    text = "\x1f".join(f"{type(name).__name__}:{name}" for name in names)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=SEED_BYTES).digest(), "big")
