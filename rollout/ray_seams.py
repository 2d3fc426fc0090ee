"""Every private or undocumented name of Ray that we use: reason, upstream link, and the test that notices a change.

Importing this module imports no Ray: the command line and the processes of a study's trials need parts of it before
they need Ray. A new Ray is tried with `tests/rollout/test_ray_seams.py`, which looks at every name on its own.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ray.actor import ActorHandle
    from ray.tune.progress_reporter import TrialProgressCallback as TrialProgressCallback

# A cluster of our own, and joining one.

THIS_MACHINE_ONLY = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""Variable that, set to 0, has Ray leave 127.0.0.1 as it is when it joins a cluster there.

Else it looks for the cluster where others would reach this machine, and our own do not listen there.
https://github.com/ray-project/ray/pull/31166, https://github.com/ray-project/ray/pull/32409;
test_a_machine_alone_keeps_127_0_0_1
"""
LOOPBACK = "127.0.0.1:"
SET_BY_RAY = ("RAY_", "TUNE_")
"""Starts of the variables that Ray sets in its workers. test_a_trial_is_a_driver_of_its_own"""
CHANGED_BY_RAY = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")
"""Variables of others that Ray sets in its workers."""
NEEDED_TO_JOIN = "RAY_AUTH_"
"""Start of the variables without which a Ray cluster with token authentication refuses a new driver.

https://github.com/ray-project/ray/pull/58408; test_the_token_lies_where_ray_writes_it
"""
QUIET_TUNE = {"TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1", "RAY_AIR_NEW_OUTPUT": "0"}
"""Variables under which Tune logs nothing itself and takes our `TrialProgressCallback` for its own output.

Every run of a study logs for itself. https://github.com/ray-project/ray/pull/60981;
test_tune_prints_through_our_callback_only
"""


@contextmanager
def loopback() -> Iterator[None]:
    """`ray_constants.ENABLE_RAY_CLUSTER`: the node that Ray starts gets 127.0.0.1, and what follows a node's address
    binds there.

    `_node_ip_address="127.0.0.1"` alone does nothing: Ray replaces it by an address that others can reach, unless it
    was told that this machine will never be part of a cluster. On macOS and Windows that is Ray's default. (The
    variable `THIS_MACHINE_ONLY` comes too late: Ray reads it when it is imported.)
    https://github.com/ray-project/ray/issues/30770; test_a_machine_alone_keeps_127_0_0_1
    """
    from ray._private import ray_constants

    known = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = known


def own_settings() -> dict[str, Any]:
    """`ray.init(_system_config=...)` for a cluster of our own.

    Ray warns in the terminal from four times as many workers as it starts at once, by default one per core. Ours are
    few and large, take turns, and reserve no cores; the warning itself cannot be switched off. Ray also starts workers
    at niceness 15, so that any other program on the machine takes the cores away from a run.
    https://github.com/ray-project/ray/issues/63800, https://github.com/ray-project/ray/pull/39253;
    test_ray_takes_our_settings
    """
    return {"worker_maximum_startup_concurrency": 4 * (os.cpu_count() or 1), "worker_niceness": 0}


HELPERS = ("DatasetsCallback", "PlacementGroupCleanerCallback")
"""Callbacks by which Ray Train starts an actor for datasets, of which we give it none, and one that asks the dashboard
again and again whether the controller lives. See `few_helpers`."""
NO_WATCHER = ("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
"""Variable of Ray Train: no actor that waits for a cloud to take a node back. See `few_helpers`."""


@contextmanager
def few_helpers(trainer: Any) -> Iterator[None]:
    """`_create_default_callbacks` of a Ray Train trainer, without `HELPERS`, and `NO_WATCHER`: in the block, its `fit`
    starts three actors less, each of which imports Ray Train and stays.

    For a cluster of our own: it has no dashboard and one node, and it ends with the run, placement groups and all.
    https://github.com/ray-project/ray/issues/65443, https://github.com/ray-project/ray/pull/63309,
    https://github.com/ray-project/ray/pull/63807; test_ray_train_starts_without_helpers
    """
    create = trainer._create_default_callbacks
    trainer._create_default_callbacks = lambda: [each for each in create() if type(each).__name__ not in HELPERS]
    name, off = NO_WATCHER
    asked = name in os.environ
    os.environ.setdefault(name, off)
    try:
        yield
    finally:
        if not asked:
            del os.environ[name]


SESSION = "/ray/session_2026-11-28_21-22-32_942516_1234567/sockets/plasma_store"
"""What Ray adds to RAY_TMPDIR (else TMPDIR, else /tmp) for the longest path of a socket.

https://github.com/ray-project/ray/issues/7724; test_ray_refuses_what_we_take_for_too_long
"""
SOCKET_PATH_BYTES = 107 if sys.platform.startswith("linux") else 103
"""Most that a path of a socket may have."""
START_TIMED_OUT = "timed out during startup"
"""In the text of the plain `Exception` by which Ray says that its own start took too long, as on a loaded machine.

https://github.com/ray-project/ray/issues/47087; test_ray_says_in_these_words_that_its_start_took_too_long
"""


def temporary_folder() -> str:
    """`get_default_system_temp_dir`: where Ray keeps its sessions. test_ray_refuses_what_we_take_for_too_long"""
    from ray._common.utils import get_default_system_temp_dir

    return get_default_system_temp_dir()


HEADS = ("gcs_server", "raylet")
"""Names of the processes without which a cluster is none."""


def head_processes() -> dict[str, subprocess.Popen]:
    """`ray._private.worker._global_node.all_processes`: those `HEADS` of the cluster that this process started.

    Ray has no public way to learn of their end: it ends the driver a minute later, or says that actors died.
    https://github.com/ray-project/ray/issues/45570; test_the_processes_and_the_folder_of_our_cluster_are_known
    """
    from ray._private.worker import _global_node

    return {name: _global_node.all_processes[name][0].process for name in HEADS}


def session_folder() -> Path:
    """`_global_node.get_session_dir_path()`: where the cluster that this process started keeps logs and sockets.

    Ray never removes it. https://github.com/ray-project/ray/issues/9392;
    test_the_processes_and_the_folder_of_our_cluster_are_known
    """
    from ray._private.worker import _global_node

    return Path(_global_node.get_session_dir_path())


@contextmanager
def muted_errors(mute: Callable[[], bool]) -> Iterator[None]:
    """`ray._private.worker.print_to_stdstream`: what Ray says, unless `mute` says no.

    A raylet that was killed is announced with the last 20 lines of its log, twice.
    test_ray_prints_what_its_processes_say_through_one_function
    """
    from ray._private import worker

    printed = worker.print_to_stdstream

    def print_to_stdstream(*args: Any, **kwargs: Any) -> None:
        if not mute():
            printed(*args, **kwargs)

    worker.print_to_stdstream = print_to_stdstream
    try:
        yield
    finally:
        worker.print_to_stdstream = printed


def protect_token() -> None:
    """Keep the token that Ray writes into the home folder from other users of this machine.

    Ray names the place in its documentation and writes with the process's umask.
    https://github.com/ray-project/ray/pull/64755; test_the_token_lies_where_ray_writes_it
    """
    token = Path.home() / ".ray" / "auth_token"
    if token.is_file() and token.stat().st_uid == os.getuid():
        token.chmod(0o600)


def driver_variables(worker: Mapping[str, str], address: str) -> dict[str, str]:
    """Variables for a process that a Ray worker starts and that shall be a driver of its own on the cluster `address`.

    A child of a worker inherits what makes Ray take it for that worker. https://github.com/ray-project/ray/pull/31166;
    test_a_trial_is_a_driver_of_its_own
    """
    kept = {
        key: value
        for key, value in worker.items()
        if not (key.startswith(SET_BY_RAY) or key in CHANGED_BY_RAY) or key.startswith(NEEDED_TO_JOIN)
    }
    return {**kept, "RAY_ADDRESS": address} | ({THIS_MACHINE_ONLY: "0"} if address.startswith(LOOPBACK) else {})


# Actors and errors.


def is_alive(handle: ActorHandle) -> bool:
    """`ray._private.state.actors` and `ActorHandle._actor_id`: whether an actor's process is there now.

    The public state API asks the dashboard, which a cluster of our own does not have; Ray itself stays with the private
    call where it must work without one. https://github.com/ray-project/ray/pull/56733;
    test_an_actor_is_alive_until_it_is_killed
    """
    from ray._private.state import actors

    return actors(handle._actor_id.hex())["State"] == "ALIVE"


DEATHS = (
    "ActorDiedError",
    "WorkerCrashedError",
    "WorkerHealthCheckFailedError",
    "NodeDiedError",
    "LocalRayletDiedError",
)
"""Names of Ray's errors for a process that died without saying why; `WorkerHealthCheckFailedError` is internal.

https://github.com/ray-project/ray/pull/54833; test_errors_are_named_and_opened_as_ray_makes_them
"""
OUT_OF_MEMORY = r"running low on memory|due to memory pressure"
"""How Ray's memory monitor says that it killed a worker, where it comes without the class of its own.

https://github.com/ray-project/ray/pull/54833; test_want_of_memory_is_one_line_wherever_it_comes_from
"""


def is_sigterm(error: BaseException) -> bool:
    """`SystemExit.ray_terminate_msg`: whether Ray's handler of SIGTERM raised this in one of its workers.

    What else leaves a call as SystemExit was raised by the code that the call runs.
    https://github.com/ray-project/ray/pull/40210; test_sigterm_is_told_from_an_exit_of_the_code_itself
    """
    return "SIGTERM" in getattr(error, "ray_terminate_msg", "")


def contain_exit_actor() -> None:
    """`ray.actor.exit_actor`: in this process it raises `SystemExit` and nothing else, as every other exit does.

    Ray's own also tells the worker to end after the call, for good; that cannot be taken back.
    https://github.com/ray-project/ray/pull/40210; test_an_actor_that_asks_to_end_may_be_kept
    """
    import ray.actor

    def exit_actor() -> None:
        raise SystemExit("exit_actor() was called")

    ray.actor.exit_actor = exit_actor


def task_cause(error: BaseException) -> Any:
    """`RayTaskError.cause`: the worker's own error inside the one that Ray raises; None of other errors.

    https://github.com/ray-project/ray/pull/55222; test_errors_are_named_and_opened_as_ray_makes_them
    """
    return getattr(error, "cause", None)


def inner_errors(error: BaseException) -> list[Any]:
    """What Ray Train and Ray's tasks wrapped into an error: attributes of their error classes, some of them private.

    Ray Train has no public way from its error to the worker's own.
    https://github.com/ray-project/ray/pull/54833, https://github.com/ray-project/ray/pull/55222;
    test_errors_are_named_and_opened_as_ray_makes_them
    """
    inner = [*getattr(error, "worker_failures", {}).values(), getattr(error, "controller_failure", None)]
    return [*inner, task_cause(error), *(getattr(error, name, None) for name in ("_base_exc", "health_check_failure"))]


def __getattr__(name: str) -> Any:
    """`TrialProgressCallback`, the class that Tune looks for before it adds output of its own: Tune is slow to import.

    https://github.com/ray-project/ray/pull/60981; test_tune_prints_through_our_callback_only
    """
    if name == "TrialProgressCallback":
        return importlib.import_module("ray.tune.progress_reporter").TrialProgressCallback
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
