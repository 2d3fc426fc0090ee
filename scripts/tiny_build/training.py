"""The plain training loop of the tools (autoencoder, tokenizer) and of BLIP3-o's parts."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
from rich.console import Console
from torch import nn

WARMUP_STEPS = 50


def fit(
    stage: str,
    parameters: list[nn.Parameter],
    losses: Callable[[torch.Tensor], dict[str, torch.Tensor]],
    num_rows: int,
    steps: int,
    batch_size: int,
    generator: torch.Generator,
    console: Console,
    rate: float = PEAK_RATE,
) -> None:
    """Minimise `losses(rows)["loss"]` over random rows; prints the running mean of every loss."""
    optimizer = torch.optim.AdamW(parameters, rate, betas=(0.9, 0.95), weight_decay=0.0)
    means, start = {}, time.time()
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = rate * _share(step, steps)
        values = losses(torch.randint(num_rows, (batch_size,), generator=generator))
        optimizer.zero_grad()
        values["loss"].backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        means = {name: 0.95 * means.get(name, value.item()) + 0.05 * value.item() for name, value in values.items()}
        if step % 50 == 0 or step == steps - 1:
            text = "  ".join(f"{name} {value:.4f}" for name, value in means.items())
            console.print(f"{stage} {step}/{steps}  {text}  {time.time() - start:.0f} s")


def _share(step: int, steps: int) -> float:
    """Of the peak rate: linear warm-up, then cosine to 2 %."""
    progress = max(0.0, (step - WARMUP_STEPS) / max(1, steps - WARMUP_STEPS))
    return min(1.0, (step + 1) / WARMUP_STEPS) * (0.02 + 0.49 * (1 + np.cos(np.pi * progress)))
