"""The plain loops in a process of their own, which does nothing while somebody else is measured.

What is imported here is light: the process that waits for them needs no torch. As in our workers, threads that wait
sleep instead of spinning, unless OMP_WAIT_POLICY says otherwise: where other programs want the cores too, spinning made
a loop many times slower.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from blip3o_grpo.configs import RunConfig
from blip3o_grpo.rollout import Prompt

if TYPE_CHECKING:
    from scripts.plain_loop.loop import PlainLoop

PLAIN = "plain loop"
RELEASED = "as released"
RELEASED_BATCH = 16
RELEASED_STEPS = 30


class PlainProcess:
    """Context manager: a process with two loops, `PLAIN` in its fastest setting and `RELEASED` as the released code.

    Args:
        config: the recipe.
        policy_path: folder of the starting policy.
        prompts: of a step, for the search for the fastest setting.
        reference: held-out prompts of which both loops' rewards see the starting policy's images.
    """

    def __init__(self, config: RunConfig, policy_path: Path, prompts: Sequence[Prompt], reference: Sequence[Prompt]):
        self._executor = ProcessPoolExecutor(1, mp_context=get_context("spawn"))
        self._job = (config, policy_path, list(prompts), list(reference))

    def __enter__(self) -> PlainProcess:
        with patch.dict(os.environ, {"OMP_WAIT_POLICY": "PASSIVE"} | os.environ):
            starting = self._executor.submit(_start, *self._job)
        self.settings: dict[str, Any] = starting.result()
        return self

    def step(self, name: str, prompts: Sequence[Prompt], step: int) -> dict[str, dict[str, float]]:
        """One step of a loop: seconds and CPU seconds by stage."""
        return self._executor.submit(_step, name, list(prompts), step).result()

    def __exit__(self, *_: object) -> None:
        self._executor.submit(_close).result()
        self._executor.shutdown()


_loops: dict[str, PlainLoop] = {}
"""Of the process of the loops."""


def _start(
    config: RunConfig, policy_path: Path, prompts: Sequence[Prompt], reference: Sequence[Prompt]
) -> dict[str, Any]:
    """Load both loops, look for the fastest setting, and have both do a step; what was found."""
    import torch

    from scripts.plain_loop.loop import PlainLoop, Setting, tuned
    from scripts.plain_loop.scoring import ONE_BY_ONE, POOL, Scoring

    cores = len(os.sched_getaffinity(0))
    torch.set_num_threads(cores)
    torch.manual_seed(config.seed)
    rollout, per_prompt = config.rollout, config.evaluation.images_per_prompt
    scoring = Scoring(config.rewards, rollout.group_size, cores)
    batches = dict.fromkeys(("sample_batch", "decode_batch", "micro_batch"), RELEASED_BATCH)
    plain = Setting(**batches, scoring=POOL, num_diffusion_steps=rollout.num_diffusion_steps, keep_hidden=True)
    released = Setting(**batches, scoring=ONE_BY_ONE, num_diffusion_steps=RELEASED_STEPS, keep_hidden=False)
    for name, setting in ((PLAIN, plain), (RELEASED, released)):
        _loops[name] = PlainLoop(config, policy_path, scoring, setting)
    loop = _loops[PLAIN]
    rows = loop.rows(reference, per_prompt)
    images = loop.decode(rows, *loop.sample(rows), loop.seeds(reference, "eval", per_prompt))
    scoring.fit(images, [prompt for prompt in reference for _ in range(per_prompt)])
    loop.setting, tried = tuned(loop, prompts)
    for loop in _loops.values():
        loop.step(prompts, step=1)
    settings = {name: asdict(loop.setting) for name, loop in _loops.items()}
    return {"settings": settings, "tried_seconds": tried}


def _step(name: str, prompts: Sequence[Prompt], step: int) -> dict[str, dict[str, float]]:
    return _loops[name].step(prompts, step)


def _close() -> None:
    for loop in _loops.values():
        loop.scoring.close()
