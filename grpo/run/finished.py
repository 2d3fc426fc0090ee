"""A run that is finished answers from its folder: nothing is loaded, started or written."""

from __future__ import annotations

from typing import Any

from blip3o_grpo.configs import RunConfig
from blip3o_grpo.run.files import SUMMARY, RunFileError, read_object
from blip3o_grpo.run.folder import RunFolder


def finished_summary(config: RunConfig) -> dict[str, Any] | None:
    """`summary.json` of a run of this configuration that has done all its steps and saved its policy, else None.

    A summary that cannot be read is made again by the run.

    Raises:
        ConfigError: the folder holds a run of another configuration.
    """
    folder = RunFolder(config.run_dir)
    if not folder.config.is_file() or not folder.summary.is_file():
        return None
    folder.check(config.model_copy(update={"run_dir": str(folder.path)}))
    try:
        summary = read_object(folder.summary, SUMMARY)
    except RunFileError:
        return None
    complete = (folder.policy / "config.json").is_file() and folder.newest_step() >= config.trainer.max_steps
    return summary if complete and summary["steps"] >= config.trainer.max_steps else None
