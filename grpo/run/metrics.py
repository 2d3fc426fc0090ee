"""Metric names, and `metrics.jsonl`: one line per optimiser step that a resumed run continues without gap or double.

TRL's names are translated in one place (`rename`); what is constant for image tokens (completion lengths), or wrong
here, is dropped.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from blip3o_grpo.configs.atomic import storage_errors, write_atomically
from blip3o_grpo.configs.regular_files import is_regular, read_bytes
from blip3o_grpo.run.files import METRICS, parse_object

RENAMED = {
    "reward": "reward/mean",
    "reward_std": "reward/std",
    "kl": "kl/reference",
}
DROPPED = (
    "completions/",
    "num_tokens",
    "step_time",
    "frac_reward_zero_std",  # not of groups, with some options: `groups/without_spread` is ours
    "policy_loss",  # of one micro-batch with some losses, of all with others
    "sampling/",  # where TRL computes them: `mismatch/...` are ours, also where it does not
)


def rename(name: str) -> str | None:
    """Our name of a TRL metric, or None if it says nothing here."""
    if name.startswith(DROPPED):
        return None
    if name.startswith("rewards/"):  # rewards/<name>/mean, rewards/<name>/std
        _, reward, statistic = name.split("/")
        return f"reward/{reward}" if statistic == "mean" else f"reward/{reward}_{statistic}"
    return RENAMED.get(name, name)


def rename_selected(name: str) -> str | None:
    """`rename` where a step learns from a choice of what was drawn: TRL's rewards are means of that, and those of
    `training/step_metrics.drawn_rewards`, of everything that was drawn, are in their place.
    """
    return None if name in ("reward", "reward_std") or name.startswith("rewards/") else rename(name)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All complete lines of a `metrics.jsonl` (a line cut off by a crash is left out).

    Raises:
        RunFileError: a line is no object of numbers with the key `step`; names it.
    """
    if not is_regular(path):
        return []
    lines = read_bytes(path).decode("utf-8", errors="replace").split("\n")
    return [parse_object(line, METRICS, f"{path}:{number}") for number, line in enumerate(lines[:-1], start=1)]


def forget_later(path: Path, step: int) -> None:
    """Drop the lines after a step: a run that resumes from its checkpoint repeats what they tell."""
    kept = [line for line in read_metrics(path) if line["step"] <= step]
    write_atomically(path, "".join(json.dumps(line) + "\n" for line in kept))


def spent_until(
    lines: Sequence[Mapping[str, Any]], step: int, images_per_batch: int, updates: int
) -> tuple[float, float]:
    """Images painted to learn from, and minutes of steps, up to the end of a step.

    Args:
        lines: of `metrics.jsonl`.
        images_per_batch: where a line does not tell, as in runs of older versions.
        updates: optimiser steps on a batch, likewise.
    """
    before = [line for line in lines if line["step"] <= step]
    told = next((line for line in reversed(before) if "images/total" in line), None)
    seconds = sum(line.get("time/step") or 0.0 for line in before)
    return (step // updates * images_per_batch if told is None else told["images/total"]), seconds / 60


def append_metrics(path: Path, step: int, metrics: Mapping[str, Any]) -> None:
    """Add the line of a step; it is on the disk before the checkpoint of this step, which promises that it is there.

    Raises:
        StorageError: the disk is full, for example.
    """
    line = json.dumps({"step": step, **finite(metrics)})
    with storage_errors(path), path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")
        file.flush()
        os.fsync(file.fileno())


def finite(metrics: Mapping[str, Any]) -> dict[str, float | None]:
    """Numbers only; NaN and infinity, which JSON cannot say, become null."""
    return {
        name: value if value is None or math.isfinite(value) else None
        for name, value in metrics.items()
        if name != "epoch" and (value is None or isinstance(value, int | float))
    }
