"""Supervised warm start: a run that keeps the promises of `train` about its folder, signals, disks and resuming.

`joint` trains the AR part and the diffusion head together; `sequential` trains the AR part alone for `ar_steps`, then
freezes it and trains the head. What can be known to be wrong is told first, before torch is imported. Left out:
multi-GPU; the released model needs no warm start, only new data does.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from rich.console import Console

from blip3o_grpo.configs import WarmstartConfig
from blip3o_grpo.configs.names import SHIPPED
from blip3o_grpo.progress import activity
from blip3o_grpo.run.folder import WARMSTART, RunFolder
from blip3o_grpo.run.locks import hold
from blip3o_grpo.run.metrics import read_metrics
from blip3o_grpo.run.stopping import StopSignals
from blip3o_grpo.warmstart.captions import digest_pictures, read_captions
from blip3o_grpo.warmstart.types import CheckedWarmstart, WarmstartResult


def train_supervised(config: WarmstartConfig, console: Console | None = None) -> WarmstartResult:
    """Train, or go on where the newest checkpoint stopped; a finished run answers at once.

    Raises:
        ConfigError: the run folder belongs to another configuration or to something else.
        WarmstartDataError, ImageFileError: captions or pictures that cannot be used.
        CheckpointError: the policy cannot be loaded.
        RunFolderInUseError, StorageError, CheckpointRefusedError: as for `train`.
        WarmstartError: the loss or its gradient is not finite.
        RunStopped: SIGINT, SIGTERM or SIGHUP.
    """
    console = console or Console()
    config = with_absolute_paths(config)
    folder = RunFolder(config.run_dir, WARMSTART)
    folder.check(config)
    if not is_finished(folder):
        run = CheckedWarmstart(config, folder, pictures := read_captions(config), digest_pictures(pictures))
        with hold(folder.lock), StopSignals() as signals:
            folder.check(config)  # again: another process may have been quicker
            if not is_finished(folder):
                folder.prepare(config)
                with activity(console, "loading libraries"):
                    from blip3o_grpo.warmstart.training import train

                train(run, console, signals)
    return result(folder, console)


def with_absolute_paths(config: WarmstartConfig) -> WarmstartConfig:
    """Paths that mean the same in the run folder's `config.yaml` as they do here."""
    changes = {key: str(Path(getattr(config, key)).expanduser().absolute()) for key in ("images", "captions")}
    if Path(config.policy.path).expanduser().is_dir() and config.policy.path not in SHIPPED:
        path = str(Path(config.policy.path).expanduser().absolute())
        changes["policy"] = config.policy.model_copy(update={"path": path})
    return config.model_copy(update=changes)


def is_finished(folder: RunFolder) -> bool:
    """Whether the run has its policy, which is the last thing it writes."""
    return folder.config.is_file() and (folder.policy / "config.json").is_file()


def result(folder: RunFolder, console: Console) -> WarmstartResult:
    """What a finished run has reached, also printed."""
    lines = read_metrics(folder.metrics)
    losses = {name: value for line in lines for name, value in line.items() if name != "step"}
    told = "  ".join(f"{name} {value:.3f}" for name, value in losses.items() if value is not None)
    show = partial(console.print, soft_wrap=True, highlight=False, markup=False)
    show(f"{len(lines)} steps  {told}")
    show(f"policy: {folder.policy}")
    return WarmstartResult(folder.path, folder.policy, len(lines), losses)
