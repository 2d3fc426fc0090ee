"""Which prompts each batch of rollouts has: decided before the run, so any can be repeated or resumed exactly."""

from __future__ import annotations

import itertools

import numpy as np


def prompt_schedule(num_prompts: int, prompts_per_step: int, num_batches: int, seed: int) -> list[int]:
    """Indices of the prompts of all batches, `[num_batches * prompts_per_step]`, batch after batch.

    Every pass over the prompts is a fresh permutation; the remainder that does not fill a batch is left for the next
    pass, so no batch has a prompt twice. A longer run starts like a shorter one.

    Raises:
        ValueError: fewer prompts than one batch needs.
    """
    if num_prompts < prompts_per_step:
        raise ValueError(f"{num_prompts} prompts cannot fill a step of {prompts_per_step} different prompts")
    per_pass = num_prompts // prompts_per_step * prompts_per_step
    generator = np.random.default_rng(seed)
    passes = (generator.permutation(num_prompts)[:per_pass].tolist() for _ in itertools.count())
    return list(itertools.islice(itertools.chain.from_iterable(passes), num_batches * prompts_per_step))
