"""Writes what was rolled out: per step a folder with one JSON line a group, and its best and worst image.

RUN/rollouts/step-000012/rollouts.jsonl, 000-best.png, 000-worst.png, 001-best.png, ...
A folder appears complete or not at all, and a repeated step replaces its folder: a resumed run leaves no duplicates.
Pictures are encoded in threads while the step goes on; one step may wait to be written, the next one waits for it.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
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
    pictures: dict[str, np.ndarray]
    """`best` and `worst`, or every rollout under its index: `[H, W, 3]` uint8."""


ENCODERS = min(4, os.cpu_count() or 1)
"""Threads that encode PNG: Pillow lets go of the interpreter while it compresses."""
COMPRESSION = 1
"""Of PNG, 0 to 9: 1,024 px take a third of the time that Pillow's default of 6 takes."""


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
        self._writer = ThreadPoolExecutor(1, "rollout-recorder")
        self._encoders = ThreadPoolExecutor(ENCODERS, "rollout-png")
        self._writing: Future[Path] | None = None

    def record(self, step: int | str, batch: RolloutBatch) -> Path:
        """Write one step and return its folder."""
        self.write(step, self.pick(step, batch))
        return self.wait()

    def pick(self, step: int | str, batch: RolloutBatch) -> list[PickedGroup]:
        """Best and worst image of each group, and what its line says."""
        return [self._pick(step, group) for group in batch.groups]

    def write(self, step: int | str, groups: Sequence[PickedGroup]) -> None:
        """Have one step's groups written, in this order, once the step before is.

        Raises:
            OSError: the step before could not be written.
        """
        self.wait()
        self._writing = self._writer.submit(self._write, step, groups)

    def wait(self) -> Path | None:
        """Until all is on disk: the folder of the step that was being written, if any was.

        Raises:
            OSError: it could not be written.
        """
        writing, self._writing = self._writing, None
        return writing.result() if writing else None

    def _write(self, step: int | str, groups: Sequence[PickedGroup]) -> Path:
        name = f"step-{step:06d}" if isinstance(step, int) else f"step-{step}"
        target = self.folder / name
        with staged_folder(target) as staged:
            self._fill(staged, groups)
        return target

    def _fill(self, staged: Path, groups: Sequence[PickedGroup]) -> None:
        lines = []
        for index, group in enumerate(groups):
            files = {kind: f"{index:03d}-{kind}.png" for kind in group.pictures}
            for file, png in zip(files.values(), self._encoders.map(_png, group.pictures.values()), strict=True):
                (staged / file).write_bytes(png)
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
        pictures = {kind: group.rollouts[member].image for kind, member in kept.items()}
        return PickedGroup(line, members, pictures)

    def _total(self, rollout: Rollout) -> float:
        return sum(self.weights.get(name, 1.0) * (value or 0.0) for name, value in rollout.rewards.items())


def _png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG", compress_level=COMPRESSION)
    return buffer.getvalue()
