"""The run folder: where everything of a run lies, what makes a checkpoint complete, and when a run may resume.

RUN/config.yaml            resolved configuration, written once
RUN/checkpoints/checkpoint-N   AR weights, optimizer, scheduler, RNG and trainer state after step N
RUN/metrics.jsonl          one line per step
RUN/tensorboard/           the same, for TensorBoard
RUN/evaluations/*.json     held-out results (before, step-N, after)
RUN/grids/*.png            held-out pictures
RUN/rollouts/              each group's best and worst image
RUN/reward_state.pt        what rewards remember of the starting policy
RUN/policy/                the trained policy in the released layout
RUN/summary.json           the result
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from configs import ConfigError, RunConfig, differing_keys, dump_config, expand_user, load_run_config

STAGING = ".incomplete"
OWN = ("checkpoints", "evaluations", "grids", "metrics.jsonl", "policy", "ray", "rollouts", "summary.json")
"""What a run replaces or deletes in its folder."""


class RunFolder:
    """Paths of a run, and its resume logic."""

    def __init__(self, path: str | Path):
        self.path = expand_user(path).resolve()
        self.config = self.path / "config.yaml"
        self.checkpoints = self.path / "checkpoints"
        self.staging = self.checkpoints / STAGING
        self.metrics = self.path / "metrics.jsonl"
        self.tensorboard = self.path / "tensorboard"
        self.evaluations = self.path / "evaluations"
        self.grids = self.path / "grids"
        self.reward_state = self.path / "reward_state.pt"
        self.policy = self.path / "policy"
        self.summary = self.path / "summary.json"

    def check(self, config: RunConfig) -> None:
        """Refuse to continue a run under another configuration, and a folder whose content is no run's.

        Raises:
            ConfigError: naming every key that differs from the run's own `config.yaml`, or what is in the way.
        """
        if self.path.exists() and not self.path.is_dir():
            raise ConfigError(f"run_dir: {self.path} is a file")
        if not self.config.is_file():
            in_the_way = [name for name in OWN if (self.path / name).exists()]
            if in_the_way:
                raise ConfigError(
                    f"run_dir: {self.path} is no run folder (no config.yaml), and a run would replace its "
                    f"{', '.join(in_the_way)}; give another run_dir"
                )
            return
        differing = differing_keys(load_run_config(self.config), config)
        differing = [key for key in differing if key != "run_dir"]  # a run folder may have been moved
        if differing:
            raise ConfigError(
                f"{self.path} holds a run with another configuration (differs in {', '.join(differing)}); "
                "give another run_dir, or the same values to resume"
            )

    def prepare(self, config: RunConfig) -> None:
        """Create the folder, write its configuration, remove what an interrupted save left behind."""
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(self.staging, ignore_errors=True)
        if not self.config.is_file():
            write_atomically(self.config, dump_config(config))

    def newest_checkpoint(self) -> Path | None:
        """The complete checkpoint with the highest step, or None."""
        found = _checkpoints(self.checkpoints)
        return found[max(found)] if found else None

    def newest_step(self) -> int:
        """Optimiser steps done by the newest complete checkpoint (0: none)."""
        return max(_checkpoints(self.checkpoints), default=0)


def finish_checkpoint(staging: Path, step: int, keep: int) -> None:
    """Move `staging/checkpoint-step` beside the others and delete all but the newest `keep`."""
    folder = staging.parent
    target = folder / f"checkpoint-{step}"
    shutil.rmtree(target, ignore_errors=True)
    os.replace(staging / target.name, target)
    found = _checkpoints(folder)
    for old in sorted(found)[:-keep]:
        shutil.rmtree(found[old])


def policy_folder(name: str) -> Path:
    """Folder of a policy given as `tiny`, a folder in the released layout, or a run folder.

    Raises:
        CheckpointError, ConfigError: nothing usable there.
    """
    from policies import resolve_policy_path

    run = RunFolder(name)
    if run.config.is_file() and not run.policy.is_dir():
        raise ConfigError(f"{run.path} is a run that has not finished: it has no policy yet")
    return run.policy if run.config.is_file() else resolve_policy_path(name)


def write_atomically(path: Path, text: str) -> None:
    """Write `text` so that readers see the old file or the new one, never half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_name(f".{path.name}.tmp")
    staged.write_text(text, encoding="utf-8")
    os.replace(staged, path)


def _checkpoints(folder: Path) -> dict[int, Path]:
    return {int(path.name.removeprefix("checkpoint-")): path for path in folder.glob("checkpoint-[0-9]*")}
