"""A run that goes back to an earlier checkpoint and ends there (`guards.gold_fall: rollback`).

Later checkpoints are deleted, the newest first, and then RUN/rolled_back.json says why: from there on the newest
checkpoint is the result, and whoever asks for that needs to know nothing of it. After a kill before the file is there
the run resumes and decides the same once more.
"""

from __future__ import annotations

import json

from pydantic import TypeAdapter
from typing_extensions import TypedDict  # pydantic asks for it before Python 3.12

from blip3o_grpo.configs import RunConfig
from blip3o_grpo.configs.atomic import storage_errors, write_atomically
from blip3o_grpo.configs.regular_files import is_regular
from blip3o_grpo.run.files import Count, read_object
from blip3o_grpo.run.folder import RunFolder, checkpoints_in, delete_checkpoint
from blip3o_grpo.run.manifest import fault, read_manifest, set_score
from blip3o_grpo.run.metrics import read_metrics
from blip3o_grpo.run.retention import checkpoint_score


class RolledBack(TypedDict):
    """`rolled_back.json`."""

    step: Count
    """Of the result; 0: the starting policy."""
    after: Count
    """Step whose evaluation ended the run."""
    reason: str


ROLLED_BACK = TypeAdapter(RolledBack)


def roll_back(folder: RunFolder, step: int, after: int, reason: str) -> None:
    """Make the checkpoint of `step` the run's newest (0: leave none), and remember why.

    Raises:
        StorageError: the disk is full, for example.
    """
    with storage_errors(folder.checkpoints):
        for later in sorted(checkpoints_in(folder.checkpoints).items(), reverse=True):
            if later[0] > step:
                delete_checkpoint(later[1])
    values: RolledBack = {"step": step, "after": after, "reason": reason}
    write_atomically(folder.rollback, json.dumps(values, indent=1) + "\n")


def rolled_back(folder: RunFolder, config: RunConfig) -> RolledBack | None:
    """How the run was rolled back, as long as its guards ask for that; else None.

    Raises:
        RunFileError: the file is damaged.
    """
    guards = config.guards
    if not guards.gold or guards.gold_fall != "rollback" or not is_regular(folder.rollback):
        return None
    values = read_object(folder.rollback, ROLLED_BACK)
    return values if values["step"] == folder.newest_step() else None  # type: ignore[return-value]


def has_steps_left(folder: RunFolder, config: RunConfig) -> bool:
    """Whether there is something to train: not after the last step, nor where the run was rolled back.

    A rollback that the guards no longer ask for is forgotten.
    """
    if folder.newest_step() >= config.trainer.max_steps or rolled_back(folder, config):
        return False
    folder.rollback.unlink(missing_ok=True)
    return True


def rescore_checkpoints(folder: RunFolder, config: RunConfig) -> None:
    """Give checkpoints the scores that `checkpoint.keep_best` goes by now: `guards.gold` may change when a run resumes.

    Without evaluations during training there is no gold, and nothing to do.

    Raises:
        RunFileError: the metrics are damaged.
        StorageError: the disk is full, for example.
    """
    if not config.evaluation.every_steps:
        return
    history = read_metrics(folder.metrics)
    for step, checkpoint in checkpoints_in(folder.checkpoints).items():
        score = checkpoint_score(history, config, step)
        if not fault(checkpoint, step, full=False) and read_manifest(checkpoint).score != score:
            set_score(checkpoint, score)
