"""A finished run that is to be longer: its folder becomes that of a run that was meant to be so from the start."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from blip3o_grpo.configs import RunConfig
from blip3o_grpo.configs.atomic import storage_errors, write_atomically
from blip3o_grpo.evaluation.heldout import Evaluation, heldout_metrics
from blip3o_grpo.run.folder import RunFolder
from blip3o_grpo.run.manifest import set_score
from blip3o_grpo.run.metrics import read_metrics
from blip3o_grpo.run.retention import heldout_score
from blip3o_grpo.run.rollback import has_steps_left


def reopen(folder: RunFolder, config: RunConfig) -> None:
    """Take back what a run wrote when it ended, if there are more steps to do now; else do nothing.

    `summary.json` goes. What was measured `after` the last step becomes the evaluation of that step; where evaluations
    are due, its means also stand in the step's metrics, and its checkpoint competes. `policy/` stays until the new one
    is there. After a kill at any moment the same call ends in the same state.

    Raises:
        RunFileError: the evaluation or the metrics are damaged.
        StorageError: the disk is full, for example.
    """
    step, after = folder.newest_step(), folder.evaluations / "after.json"
    if not has_steps_left(folder, config):
        return
    folder.summary.unlink(missing_ok=True)
    if not after.is_file() or (evaluation := Evaluation.load(after)).step != step:
        return
    if step and config.evaluation.every_steps and step % config.evaluation.every_steps == 0:
        _add_metrics(folder.metrics, step, heldout_metrics(evaluation))
        set_score(folder.newest_checkpoint(), heldout_score(read_metrics(folder.metrics), config, step))
    after_as_step(folder, step)


def after_as_step(folder: RunFolder, step: int) -> None:
    """What was measured `after` the last step becomes the evaluation of that step, pictures included.

    Raises:
        StorageError: the file system refused.
    """
    for name in ("grids/after.png", "evaluations/after-images", "evaluations/after.json"):
        old = folder.path / name
        if old.exists():
            new = old.with_name(old.name.replace("after", f"step-{step}"))
            with storage_errors(new):
                if new.is_dir():
                    shutil.rmtree(new)
                os.replace(old, new)


def _add_metrics(file: Path, step: int, values: Mapping[str, float]) -> None:
    lines = [line | values if line["step"] == step else line for line in read_metrics(file)]
    write_atomically(file, "".join(json.dumps(line) + "\n" for line in lines))
