"""The plain training loop of the tools (autoencoder, tokenizer) and of BLIP3-o's parts."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from torch import nn

from blip3o_grpo.configs.atomic import staged_file

PEAK_RATE = 2e-3
WARMUP_STEPS = 50
CHECKPOINT_STEPS = 100


def fit(
    stage: str,
    parameters: list[nn.Parameter],
    losses: Callable[[torch.Tensor], dict[str, torch.Tensor]],
    num_rows: int,
    steps: int,
    batch_size: int,
    generator: torch.Generator,
    console: Console,
    peak_rate: float = PEAK_RATE,
    checkpoint: Path | None = None,
) -> None:
    """Minimise `losses(rows)["loss"]` over random rows; prints the running mean of every loss.

    Args:
        checkpoint: file to go on from if it is there, written every so many steps; a resumed stage ends as an
            uninterrupted one, if all chance of `losses` comes from `generator`.
    """
    optimizer = torch.optim.AdamW(parameters, peak_rate, betas=(0.9, 0.95), weight_decay=0.0)
    means, start = {}, time.time()
    done = _resume(checkpoint, parameters, optimizer, generator) if checkpoint and checkpoint.is_file() else 0
    for step in range(done, steps):
        optimizer.param_groups[0]["lr"] = peak_rate * _share(step, steps)
        values = losses(torch.randint(num_rows, (batch_size,), generator=generator))
        optimizer.zero_grad()
        values["loss"].backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        means = {name: 0.95 * means.get(name, value.item()) + 0.05 * value.item() for name, value in values.items()}
        if step % 50 == 0 or step == steps - 1:
            text = "  ".join(f"{name} {value:.4f}" for name, value in means.items())
            console.print(f"{stage} {step}/{steps}  {text}  {time.time() - start:.0f} s")
        if checkpoint and (step + 1) % CHECKPOINT_STEPS == 0:
            state = {
                "parameters": [parameter.detach() for parameter in parameters],
                "optimizer": optimizer.state_dict(),
                "generator": generator.get_state(),
                "done": step + 1,
            }
            with staged_file(checkpoint) as staged:
                torch.save(state, staged)


def _resume(
    file: Path, parameters: list[nn.Parameter], optimizer: torch.optim.Optimizer, generator: torch.Generator
) -> int:
    """Take over what `fit` wrote; returns the steps that were done."""
    state = torch.load(file, weights_only=True)
    with torch.no_grad():
        for parameter, value in zip(parameters, state["parameters"], strict=True):
            parameter.copy_(value)
    optimizer.load_state_dict(state["optimizer"])
    generator.set_state(state["generator"])
    return state["done"]


def _share(step: int, steps: int) -> float:
    """Of the peak rate: linear warm-up, then cosine to 2 %."""
    progress = max(0.0, (step - WARMUP_STEPS) / max(1, steps - WARMUP_STEPS))
    return min(1.0, (step + 1) / WARMUP_STEPS) * (0.02 + 0.49 * (1 + math.cos(math.pi * progress)))
