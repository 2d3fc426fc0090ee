"""Writes what was rolled out: per step a folder with one JSON line a group, and its best and worst image.

RUN/rollouts/step-000012/rollouts.jsonl, 000-best.png, 000-worst.png, 001-best.png, ...
A folder appears complete or not at all, and a repeated step replaces its folder: a resumed run leaves no duplicates.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from blip3o_grpo.configs.atomic import staged_folder
from blip3o_grpo.rollout.types import Rollout, RolloutBatch, RolloutGroup


@dataclass(frozen=True)
class PickedGroup:
    """What is recorded of a group: small enough to be sent from the rank that has the group to the one that writes."""

    line: dict[str, Any]
    """Its JSON line, without the pictures' file names."""
    members: dict[str, int]
    """`best` and `worst`: index of the rollout."""
    pictures: dict[str, bytes]
    """PNG of `best` and `worst`, or of every rollout under its index."""


class RolloutRecorder:
    """Records steps under `run_dir/rollouts`; ranks pick from their own groups, one rank writes them all.

    Args:
        run_dir: the run folder.
        weights: of the rewards, for the choice of best and worst (default: all 1).
        all_images: keep every image, not only those two.
    """

    def __init__(self, run_dir: str | Path, weights: Mapping[str, float] | None = None, *, all_images: bool = False):
        self.folder = Path(run_dir) / "rollouts"
        self.weights = weights or {}
        self.all_images = all_images

    def record(self, step: int | str, batch: RolloutBatch) -> Path:
        """Write one step and return its folder."""
        return self.write(step, self.pick(step, batch))

    def pick(self, step: int | str, batch: RolloutBatch) -> list[PickedGroup]:
        """Best and worst image of each group, and what its line says."""
        return [self._pick(step, group) for group in batch.groups]

    def write(self, step: int | str, groups: Sequence[PickedGroup]) -> Path:
        """Write one step's groups, in this order, and return its folder."""
        name = f"step-{step:06d}" if isinstance(step, int) else f"step-{step}"
        target = self.folder / name
        with staged_folder(target) as staged:
            self._fill(staged, groups)
        return target

    def _fill(self, staged: Path, groups: Sequence[PickedGroup]) -> None:
        lines = []
        for index, group in enumerate(groups):
            files = {kind: f"{index:03d}-{kind}.png" for kind in group.pictures}
            for kind, file in files.items():
                (staged / file).write_bytes(group.pictures[kind])
            chosen: dict[str, Any] = {
                kind: {"member": member, "image": files.get(kind) or files[str(member)]}
                for kind, member in group.members.items()
            }
            if "best" not in files:
                chosen["images"] = list(files.values())
            lines.append(json.dumps(group.line | chosen, ensure_ascii=False) + "\n")
        (staged / "rollouts.jsonl").write_text("".join(lines), encoding="utf-8")

    def _pick(self, step: int | str, group: RolloutGroup) -> PickedGroup:
        totals = [self._total(rollout) for rollout in group.rollouts]
        members = {"best": totals.index(max(totals)), "worst": totals.index(min(totals))}
        line = {
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
        }
        kept = {str(i): i for i in range(len(group.rollouts))} if self.all_images else members
        pictures = {kind: _png(group.rollouts[member].image) for kind, member in kept.items()}
        return PickedGroup(line, members, pictures)

    def _total(self, rollout: Rollout) -> float:
        return sum(self.weights.get(name, 1.0) * (value or 0.0) for name, value in rollout.rewards.items())


def _png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    return buffer.getvalue()
