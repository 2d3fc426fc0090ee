"""The run folder: where everything of a run lies, what makes a checkpoint complete, and when a run may resume.

Two programs share it, `train` and `warmstart`; a `Program` says in what they differ.

RUN/config.yaml            resolved configuration, written once
RUN/checkpoints/checkpoint-N   weights, optimizer, scheduler, RNG and trainer state after step N, and their manifest
RUN/checkpoints/refused-...    what looked like a checkpoint and was not complete
RUN/environment.json       what each process ran with (`blip3o_grpo.run.environment`)
RUN/metrics.jsonl          one line per step
RUN/tensorboard/           the same, for TensorBoard
RUN/tracked.json           the run's id in W&B and trackio, and RUN/wandb/, what W&B keeps here
RUN/evaluations/*.json     held-out results (before, step-N, after)
RUN/grids/*.png            held-out pictures
RUN/rollouts/              each group's best and worst image
RUN/.imports/              links to this project, for rewards with an interpreter of their own
RUN/reward_state.pt        what rewards remember of the starting policy
RUN/policy/                the trained policy in the released layout
RUN/encoded.safetensors    tokens and latents of a warm start's pictures
RUN/summary.json           the result
RUN/rolled_back.json       why the result is of an earlier step (`blip3o_grpo.run.rollback`)
RUN/failures/              what was saved of steps that failed or that a guard stopped
RUN/.lock, .lock-trainer   who works here (`blip3o_grpo.run.locks`)
RUN/.stop                  a stop was asked for (`blip3o_grpo.run.stopping`)

A checkpoint is written into a staging folder, hashed, completed by its manifest and renamed. Seeds of rollouts derive
from the step, so there is no rollout state to save; the data position is the step, and `metrics.jsonl` is cut at it.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel

from blip3o_grpo.configs import (
    ConfigError,
    differing_keys,
    dump_config,
    load_run_config,
    load_warmstart_config,
    whole_path,
)
from blip3o_grpo.configs.atomic import require_writable, storage_errors, sync, write_atomically
from blip3o_grpo.configs.regular_files import is_regular, other_kind, read_text
from blip3o_grpo.run.length import OtherLength, other_length, other_warmstart_length
from blip3o_grpo.run.manifest import fault, read_manifest, write_manifest
from blip3o_grpo.run.metrics import read_metrics
from blip3o_grpo.run.retention import superfluous

STAGING = ".incomplete"
CHECKPOINT = re.compile(r"checkpoint-(\d+)", re.ASCII)
"""Name of a checkpoint; a copy such as `checkpoint-2.bak` is none."""
LEFTOVER = re.compile(r"\.incomplete|\.checkpoint-\d+", re.ASCII)
"""What an interrupted run leaves in `checkpoints/`."""
REWARD_FOUND = re.compile(r"rewards\.\d+\.(folder|guard)")
"""Keys that say what was found of a reward. They may change too: a recipe can move together with its reward's file."""


@dataclass(frozen=True)
class Program:
    """A program that fills run folders."""

    name: str
    """Its command."""
    load: Callable[[Path], BaseModel]
    """Reads the configuration that it wrote into a run folder."""
    may_change: tuple[str, ...]
    """Keys that a resumed run may give other values: none of them changes what a step computes."""
    own: tuple[str, ...]
    """What it replaces or deletes in its folder."""
    length: str
    """Key of the number of steps."""
    other_length: OtherLength
    """Says why a run cannot go on with another one."""


TRAIN = Program(
    name="train",
    load=load_run_config,
    may_change=("run_dir", "checkpoint.", "guards.", "faults.", "cluster.trainer_restarts"),
    own=(
        "checkpoints",
        "environment.json",
        "evaluations",
        "grids",
        "metrics.jsonl",
        "policy",
        "ray",
        "rolled_back.json",
        "rollouts",
        "summary.json",
    ),
    length="trainer.max_steps",
    other_length=other_length,
)
WARMSTART = Program(
    name="warmstart",
    load=load_warmstart_config,
    may_change=("run_dir", "checkpoint_every_steps", "threads"),
    own=("checkpoints", "environment.json", "metrics.jsonl", "policy"),
    length="max_steps",
    other_length=other_warmstart_length,
)


class CheckpointRefusedError(ValueError):
    """A run has checkpoints and none of them is complete."""


class RunFolder:
    """Paths of a run, and its resume logic.

    Args:
        path: of the folder.
        program: whose run it is; only `check` asks.
    """

    def __init__(self, path: str | Path, program: Program = TRAIN):
        self.path = whole_path(path)
        self.program = program
        self.config = self.path / "config.yaml"
        self.checkpoints = self.path / "checkpoints"
        self.staging = self.checkpoints / STAGING
        self.lock = self.path / ".lock"
        self.trainer_lock = self.path / ".lock-trainer"
        self.stop = self.path / ".stop"
        self.environment = self.path / "environment.json"
        self.metrics = self.path / "metrics.jsonl"
        self.tensorboard = self.path / "tensorboard"
        self.tracked = self.path / "tracked.json"
        self.evaluations = self.path / "evaluations"
        self.grids = self.path / "grids"
        self.reward_state = self.path / "reward_state.pt"
        self.policy = self.path / "policy"
        self.summary = self.path / "summary.json"
        self.rollback = self.path / "rolled_back.json"
        self.failures = self.path / "failures"

    def check(self, config: BaseModel) -> None:
        """Refuse to continue a run under another configuration, and a folder whose content is no run's.

        Another number of steps is refused only where the steps that are done would have been others.

        Raises:
            ConfigError: naming every key that differs from the run's own `config.yaml`, or what is in the way.
            StorageError: the folder cannot be made or written to.
        """
        if self.path.exists() and not self.path.is_dir():
            raise ConfigError(f"run_dir: {self.path} is a file")
        require_writable(self.path)
        self._check_kinds()
        if not is_regular(self.config):
            in_the_way = [name for name in self.program.own if (self.path / name).exists()]
            if in_the_way:
                raise ConfigError(
                    f"run_dir: {self.path} is no run folder (no config.yaml), and a run would replace its "
                    f"{', '.join(in_the_way)}; give another run_dir"
                )
            return
        try:
            known = self.program.load(self.config)
        except ConfigError as error:
            raise ConfigError(
                f"run_dir: {self.path} holds no run of `{self.program.name}` ({error}); give another run_dir"
            ) from error
        differing = [key for key in differing_keys(known, config) if not key.startswith(self.program.may_change)]
        differing = [key for key in differing if not REWARD_FOUND.fullmatch(key)]
        if differing == [self.program.length]:
            reason = self._other_length(known, config)
            if reason:
                raise ConfigError(f"{self.path}: {self.program.length} cannot be another one now: {reason}")
        elif differing:
            raise ConfigError(
                f"{self.path} holds a run with another configuration (differs in {', '.join(differing)}); "
                "give another run_dir, or the same values to resume"
            )

    def _other_length(self, known: BaseModel, config: BaseModel) -> str | None:
        """Why this run cannot have another number of steps; None also if it has done none yet."""
        done = self.newest_step()
        return self.program.other_length(known, config, done) if done or self.policy.is_dir() else None

    def _check_kinds(self) -> None:
        """Nothing else stands where this program keeps a file or a folder, and what it would go on with can be read."""
        for name in self.program.own:
            place = self.path / name
            if place.suffix:
                is_regular(place)
            elif place.exists() and not place.is_dir():
                raise ConfigError(f"run_dir: {place} is {other_kind(place) or 'a file'}; a run keeps a folder there")
        read_metrics(self.metrics)  # to go on with

    def prepare(self, config: BaseModel) -> None:
        """Create the folder, write its configuration, remove what an interrupted run left behind."""
        with storage_errors(self.checkpoints):
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            self.stop.unlink(missing_ok=True)
        self.clean()
        text = dump_config(config)
        if not is_regular(self.config) or read_text(self.config) != text:
            write_atomically(self.config, text)

    def clean(self) -> None:
        """Remove checkpoints that are half written or half deleted."""
        with storage_errors(self.checkpoints):
            for leftover in self.checkpoints.glob(".*"):
                if LEFTOVER.fullmatch(leftover.name):  # not what file managers leave, such as .DS_Store
                    shutil.rmtree(leftover)

    def newest_checkpoint(self) -> Path | None:
        """The checkpoint with the highest step whose files have the sizes its manifest names, or None."""
        step = self.newest_step()
        return checkpoints_in(self.checkpoints)[step] if step else None

    def newest_step(self) -> int:
        """Optimiser steps done by `newest_checkpoint` (0: none)."""
        found = checkpoints_in(self.checkpoints)
        return next((step for step in sorted(found, reverse=True) if not fault(found[step], step, full=False)), 0)

    def verified_checkpoint(self, warn: Callable[[str], None]) -> Path | None:
        """The newest checkpoint whose files have the hashes its manifest names; None: the run has none yet.

        Newer ones that are not complete are renamed to `refused-checkpoint-N`, with a warning that says why.

        Raises:
            CheckpointRefusedError: there are only refused ones. Starting over would throw the run away.
        """
        found = checkpoints_in(self.checkpoints)
        for step in sorted(found, reverse=True):
            reason = fault(found[step], step, full=True)
            if not reason:
                return found[step]
            warn(f"{found[step]} is not resumed from: {reason}")
            refused = found[step].with_name(f"refused-{found[step].name}")
            with storage_errors(refused):
                shutil.rmtree(refused, ignore_errors=True)
                found[step].rename(refused)
        refused = sorted(path.name for path in self.checkpoints.glob("refused-checkpoint-*"))
        if refused:
            raise CheckpointRefusedError(
                f"{self.checkpoints}: no complete checkpoint, only {', '.join(refused)}; delete these to start the run "
                "over, or give another run_dir"
            )
        return None


def finish_checkpoint(staging: Path, step: int, keep: int, keep_best: int = 0, score: float | None = None) -> None:
    """Complete `staging/checkpoint-step` by its manifest, move it beside the others, delete those that need not stay.

    A complete checkpoint of the same step is left as it is: the same step of the same run holds the same values.

    Raises:
        StorageError: the disk is full, for example; the other checkpoints are as they were.
    """
    folder = staging.parent
    target = folder / f"checkpoint-{step}"
    with storage_errors(target):
        write_manifest(staging / target.name, step, score)
        if target.exists() and fault(target, step, full=True):
            delete_checkpoint(target)
        if target.exists():
            shutil.rmtree(staging / target.name)
        else:
            os.replace(staging / target.name, target)
        sync(folder)
    found = checkpoints_in(folder)
    manifests = {kept: read_manifest(path) for kept, path in found.items()}
    scores = {kept: manifest.score for kept, manifest in manifests.items() if manifest}
    for old in superfluous(scores, keep, keep_best):
        delete_checkpoint(found[old])


def policy_folder(name: str | Path) -> Path:
    """Folder of a policy given as `tiny`, a folder in the released layout, or a run folder.

    Raises:
        CheckpointError, ConfigError: nothing usable there.
    """
    from blip3o_grpo.policies import resolve_policy_path

    if not str(name):
        raise ConfigError("the policy's name is empty; give `tiny`, a folder or a hub repository")
    run = RunFolder(name)
    if run.config.is_file() and not run.policy.is_dir():
        raise ConfigError(f"{run.path} is a run that has not finished: it has no policy yet")
    return run.policy if run.config.is_file() else resolve_policy_path(name)


def delete_checkpoint(checkpoint: Path) -> None:
    """Delete under another name: half a deletion does not look like a checkpoint."""
    doomed = checkpoint.with_name(f".{checkpoint.name}")
    checkpoint.rename(doomed)
    shutil.rmtree(doomed)


def checkpoints_in(folder: Path) -> dict[int, Path]:
    """Folders of a run's checkpoints by their steps, complete or not."""
    found = [(CHECKPOINT.fullmatch(path.name), path) for path in folder.glob("checkpoint-*")]
    return {int(name[1]): path for name, path in found if name and path.is_dir()}
