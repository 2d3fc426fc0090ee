"""What a run came to, read from its folder: nothing is loaded, started or written for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from blip3o_grpo.configs import RunConfig
from blip3o_grpo.configs.regular_files import is_regular
from blip3o_grpo.evaluation.changes import paired_changes
from blip3o_grpo.evaluation.heldout import Evaluation
from blip3o_grpo.evaluation.statistics import Estimate
from blip3o_grpo.run.files import SUMMARY, RunFileError, read_object
from blip3o_grpo.run.folder import RunFolder
from blip3o_grpo.run.rollback import rolled_back


@dataclass(frozen=True)
class TrainingResult:
    """What a run came to. Held-out results hold means, 95 % intervals and numbers of prompts and images."""

    run_dir: Path
    steps: int
    before: Evaluation
    """Of the starting policy."""
    after: Evaluation
    """Of `policy`."""
    changes: dict[str, Estimate]
    """`after - before` with interval and number of prompts, paired by prompt: `NAME`, `NAME/TAG`, `NAME/overall`."""
    seconds: float
    """Of the process that finished the run; an earlier one that was stopped is not counted."""
    peak_memory_gb: float
    mismatch_max: float | None
    """Largest mean |sampling log-prob - training log-prob| of a step (nats)."""
    versions: dict[str, str] = field(repr=False)
    """Package to version."""

    @classmethod
    def read(cls, folder: RunFolder) -> TrainingResult:
        """What a finished run left in its folder."""
        summary = read_object(folder.summary, SUMMARY)
        before, after = (Evaluation.load(folder.evaluations / f"{name}.json") for name in ("before", "after"))
        return cls(
            folder.path,
            steps=summary["steps"],
            before=before,
            after=after,
            changes=paired_changes(before, after),
            seconds=summary["seconds"],
            peak_memory_gb=summary["peak_memory_gb"],
            mismatch_max=summary.get("mismatch_max"),
            versions=summary.get("versions", {}),
        )

    @property
    def policy(self) -> Path:
        """Folder of the trained policy, in the released layout."""
        return RunFolder(self.run_dir).policy

    @property
    def summary(self) -> Path:
        """The result as JSON."""
        return RunFolder(self.run_dir).summary

    @property
    def pictures(self) -> tuple[Path, Path]:
        """PNG grids of the same held-out prompts, before and after."""
        grids = RunFolder(self.run_dir).grids
        return grids / "before.png", grids / "after.png"


def finished_result(config: RunConfig) -> TrainingResult | None:
    """Of a run of this configuration that has done all its steps, or was rolled back, and saved its policy, else None.

    A result that cannot be read is made again by the run.

    Raises:
        ConfigError: the folder holds a run of another configuration.
    """
    folder = RunFolder(config.run_dir)
    if not is_regular(folder.config) or not is_regular(folder.summary):
        return None
    folder.check(config.model_copy(update={"run_dir": str(folder.path)}))
    try:
        back = rolled_back(folder, config)
        last = back["step"] if back else config.trainer.max_steps
        complete = (folder.policy / "config.json").is_file() and folder.newest_step() >= last
        result = TrainingResult.read(folder) if complete else None
    except RunFileError:
        return None
    return result if result and (result.steps == last if back else result.steps >= last) else None
