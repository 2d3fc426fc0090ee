"""Writes what was rolled out: per step a folder with one JSON line a group, and its best and worst image.

RUN/rollouts/step-000012/rollouts.jsonl, 000-best.png, 000-worst.png, 001-best.png, ...
A folder appears complete or not at all, and a repeated step replaces its folder: a resumed run leaves no duplicates.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from rollout.types import Rollout, RolloutBatch, RolloutGroup


class RolloutRecorder:
    """Records steps under `run_dir/rollouts`.

    Args:
        run_dir: the run folder.
        weights: of the rewards, for the choice of best and worst (default: all 1).
    """

    def __init__(self, run_dir: str | Path, weights: Mapping[str, float] | None = None):
        self.folder = Path(run_dir) / "rollouts"
        self.weights = weights or {}

    def record(self, step: int | str, batch: RolloutBatch) -> Path:
        """Write one step and return its folder."""
        name = f"step-{step:06d}" if isinstance(step, int) else f"step-{step}"
        target, staged = self.folder / name, self.folder / f".{name}"
        shutil.rmtree(staged, ignore_errors=True)
        staged.mkdir(parents=True)
        lines = [self._write_group(staged, step, index, group) for index, group in enumerate(batch.groups)]
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        (staged / "rollouts.jsonl").write_text(text, encoding="utf-8")
        shutil.rmtree(target, ignore_errors=True)
        staged.rename(target)
        return target

    def _write_group(self, folder: Path, step: int | str, index: int, group: RolloutGroup) -> dict[str, Any]:
        totals = [self._total(rollout) for rollout in group.rollouts]
        chosen = {"best": totals.index(max(totals)), "worst": totals.index(min(totals))}
        for kind, member in chosen.items():
            Image.fromarray(group.rollouts[member].image).save(folder / f"{index:03d}-{kind}.png")
        return {
            "step": step,
            "prompt_id": group.prompt.id,
            "prompt": group.prompt.text,
            "metadata": group.prompt.metadata,
            "policy_version": group.rollouts[0].completion.policy_version,
            "rollouts": [
                {
                    "seed": rollout.completion.seed,
                    "logprob": round(float(rollout.completion.logprobs.sum()), 4),
                    "rewards": rollout.rewards,
                }
                for rollout in group.rollouts
            ],
            **{kind: {"member": member, "image": f"{index:03d}-{kind}.png"} for kind, member in chosen.items()},
        }

    def _total(self, rollout: Rollout) -> float:
        return sum(self.weights.get(name, 1.0) * (value or 0.0) for name, value in rollout.rewards.items())


def read_rollouts(run_dir: str | Path) -> list[dict[str, Any]]:
    """All recorded groups of a run, in order of their steps; `best` and `worst` images as full paths."""
    records = []
    for file in sorted(Path(run_dir).glob("rollouts/step-*/rollouts.jsonl")):
        for line in file.read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            for kind in ("best", "worst"):
                record[kind]["image"] = str(file.parent / record[kind]["image"])
            records.append(record)
    return records
