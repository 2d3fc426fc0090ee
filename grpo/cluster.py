"""Ray: join a cluster that was named or start one of our own, and run the training function in Ray Train's workers."""

from __future__ import annotations

import logging
import os
import shutil
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import huggingface_hub  # noqa: F401 - imported before Ray Train's thread starts: its lazy imports are not thread-safe
import ray
import transformers  # noqa: F401 - likewise
from ray.train import FailureConfig, ScalingConfig
from ray.train import RunConfig as RayRunConfig
from ray.train.torch import TorchConfig, TorchTrainer
from ray.util.queue import Queue
from rich.console import Console

from blip3o_grpo.configs import ConfigError, RunConfig
from blip3o_grpo.own_cluster import EVIDENCE, OwnCluster, end_session, remove_stale_sessions
from blip3o_grpo.progress import ProgressDisplay
from blip3o_grpo.rank_faults import RankFaults
from blip3o_grpo.rollout.ray_seams import (
    SESSION,
    SOCKET_PATH_BYTES,
    START_TIMED_OUT,
    few_helpers,
    loopback,
    own_settings,
    protect_token,
    temporary_folder,
)
from blip3o_grpo.rollout.workers.quick_imports import quick_imports
from blip3o_grpo.run.folder import RunFolder
from blip3o_grpo.run.hacking import HackingWatch
from blip3o_grpo.run.metrics import read_metrics
from blip3o_grpo.run.stopping import StopSignals, interruptible

if TYPE_CHECKING:
    from blip3o_grpo.evaluation.heldout import Evaluation
    from blip3o_grpo.rollout import RolloutPipeline
    from blip3o_grpo.validate import CheckedRun

STARTS = 3
"""Attempts to start a cluster of our own."""
OWN_SESSIONS = f"session_*_{os.getpid()}"
"""Names of the session folders of this process."""


@contextmanager
def ray_cluster(config: RunConfig, failures: Path | None = None) -> Iterator[None]:
    """Join the cluster that `cluster_address` names, or start one of our own for the time of the block.

    A program that is already connected stays connected. A cluster of our own listens on this machine only, as far as
    Ray lets us choose, has no dashboard, and asks for Ray's token (`docs/security.md`).

    Args:
        config: of the run.
        failures: folder that keeps the logs of workers after a failure; default: that of the run.

    Raises:
        ConfigError: there is no such cluster, or it refuses us; or our own cannot be started.
    """
    if ray.is_initialized():
        yield
        return
    address = cluster_address(config)
    options = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address == "local":
        check_temporary_folder(temporary_folder())
        remove_stale_sessions(Path(temporary_folder()) / "ray")
        start_cluster(options)
        protect_token()
        with OwnCluster((failures or RunFolder(config.run_dir).failures) / EVIDENCE):
            yield
    else:
        try:
            ray.init(address=address, **options)
        except (OSError, RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())[:300]
            raise ConfigError(f"cluster.address: no Ray cluster could be joined at {address!r} ({reason})") from error
        try:
            yield
        finally:
            ray.shutdown()


def check_temporary_folder(folder: str) -> None:
    """Refuse a folder that is too long for the sockets that Ray keeps there.

    Raises:
        ConfigError: saying how long it may be.
    """
    room = SOCKET_PATH_BYTES - len(SESSION)
    if len(os.fsencode(folder)) > room:
        raise ConfigError(
            f"Ray cannot keep its sockets in {folder}: the path may have {room} bytes at most; set RAY_TMPDIR to a "
            "folder with a shorter one, such as RAY_TMPDIR=/tmp"
        )


def start_cluster(options: Mapping[str, Any]) -> None:
    """Start a cluster of our own; where Ray's start takes too long, as on a loaded machine, again.

    Raises:
        ConfigError: it took too long `STARTS` times.
    """
    sessions = Path(temporary_folder()) / "ray"
    earlier = set(sessions.glob(OWN_SESSIONS))
    for attempt in range(1, STARTS + 1):
        try:
            with loopback(), hangups_blocked():
                ray.init(address="local", include_dashboard=False, _system_config=own_settings(), **options)
            return
        except BaseException as error:  # Ray has no class for it; it may also have been a signal
            ray.shutdown()
            for failed in set(sessions.glob(OWN_SESSIONS)) - earlier:
                end_session(failed)
            if START_TIMED_OUT not in str(error):
                raise
            if attempt == STARTS:
                raise ConfigError(
                    f"Ray did not start within its time in {STARTS} attempts: is this machine overloaded?"
                ) from error


@contextmanager
def hangups_blocked() -> Iterator[None]:
    """Processes that are started in the block never get SIGHUP; this one gets it afterwards.

    A terminal that closes sends it to all of them: Ray's would be gone before the run has written its checkpoint.
    """
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)


def cluster_address(config: RunConfig) -> str:
    """The Ray cluster to join, or `local` for one of our own.

    The one that the configuration names, else `RAY_ADDRESS`, which Ray sets in its jobs. A cluster that merely runs on
    this machine is never joined: it belongs to another program, which may end it.
    """
    return config.cluster.address or os.environ.get("RAY_ADDRESS") or "local"


def trainer_threads(config: RunConfig) -> int:
    """CPU threads of one trainer rank: training runs while samplers and decoders wait, so ranks share all cores."""
    return config.cluster.threads or max(1, (os.cpu_count() or 1) // config.cluster.trainers)


def ranks(config: RunConfig) -> ScalingConfig:
    """Trainer ranks as Ray Train shall start them. They take turns with the rollouts, so they reserve no core."""
    share = config.cluster.gpus_per_trainer
    resources = {"CPU": 0.01} | ({"GPU": share} if share else {})
    return ScalingConfig(num_workers=config.cluster.trainers, use_gpu=share > 0, resources_per_worker=resources)


def fit(run: CheckedRun, pipeline: RolloutPipeline, console: Console, signals: StopSignals, before: Evaluation) -> None:
    """Train from the newest checkpoint to the last step in `cluster.trainers` Ray Train workers.

    `before`, the starting policy's held-out result, is what the terminal compares later ones with.

    Raises:
        ray.train.TrainingFailedError: a worker failed; `blip3o_grpo.errors.user_error` finds our own error in it.
        RunStopped: a signal stopped the training; a checkpoint holds all finished steps.
    """
    config = run.config
    queue = Queue(actor_options={"num_cpus": 0})
    scratch = run.folder.path / "ray"  # Ray Train wants a folder all nodes see; nothing in it outlives the call
    shutil.rmtree(scratch, ignore_errors=True)
    threads = trainer_threads(config)
    job = {
        "config": config,
        "prompts": run.train_prompts,
        "heldout": run.heldout_prompts,
        "pipeline": pipeline,
        "queue": queue,
        "threads": threads,
    }
    trainer = TorchTrainer(
        _train_in_worker,
        train_loop_config={"job": ray.put(job)},  # opened by ranks only: Ray Train's controller gets it too
        torch_config=TorchConfig(backend="nccl" if config.cluster.gpus_per_trainer else "gloo"),
        scaling_config=ranks(config),
        run_config=RayRunConfig(
            name="train",
            storage_path=str(scratch),
            failure_config=FailureConfig(max_failures=config.cluster.trainer_restarts),
            callbacks=[RankFaults(queue)],
            worker_runtime_env={"env_vars": {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}},
        ),
    )
    try:
        with (
            signals.graceful(run.folder.stop),
            ProgressDisplay(
                queue,
                config.trainer.max_steps,
                run.folder.newest_step(),
                console,
                rewards=config.rewards,
                before=before,
                watch=_watch(run),
            ),
            few_helpers(trainer) if cluster_address(config) == "local" else nullcontext(),
        ):
            interruptible(trainer.fit)  # in a thread: in the main one Ray Train would take SIGINT for itself
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _watch(run: CheckedRun) -> HackingWatch:
    """A watch that has seen what a resumed run has done so far."""
    watch = HackingWatch(run.config.warnings, run.config.rewards)
    for line in read_metrics(run.folder.metrics):
        if line["step"] <= run.folder.newest_step():
            watch.see(line)
    return watch


def _train_in_worker(given: dict[str, ray.ObjectRef]) -> None:
    """Ray Train's per-worker function; TRL is imported here and not in the driver."""
    with quick_imports():
        from blip3o_grpo.rank import train_worker

    train_worker(ray.get(given["job"]))
