"""Every private name of Ray that we use still means what we take it for."""

import inspect
import mmap
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import ray
from ray._private import ray_constants, services
from ray._private.authentication import authentication_token_setup
from ray._private.utils import validate_socket_filepath
from ray._raylet import raise_sys_exit_with_custom_error_message
from ray.train import ControllerError, ScalingConfig, WorkerGroupError
from ray.train.torch import TorchTrainer
from ray.train.v2._internal import constants as train_constants
from ray.train.v2._internal.exceptions import UserExceptionWithTraceback, WorkerHealthCheckFailedError

from blip3o_grpo.rollout import ray_seams
from blip3o_grpo.rollout.ray_seams import (
    CHANGED_BY_RAY,
    DEATHS,
    HEADS,
    HELPERS,
    NEEDED_TO_JOIN,
    NO_WATCHER,
    QUIET_TUNE,
    THIS_MACHINE_ONLY,
    contain_exit_actor,
    driver_variables,
    few_helpers,
    head_processes,
    inner_errors,
    is_alive,
    is_sigterm,
    loopback,
    muted_errors,
    own_settings,
    protect_token,
    session_folder,
)


def test_no_ray_is_imported_for_its_names():
    code = "import sys, blip3o_grpo.rollout.ray_seams; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    with pytest.raises(AttributeError, match="has no attribute 'ProgressCallback'"):
        _ = ray_seams.ProgressCallback


def test_a_machine_alone_keeps_127_0_0_1(monkeypatch):
    monkeypatch.setattr(ray._private.worker, "_global_node", None)
    known = ray_constants.ENABLE_RAY_CLUSTER
    with loopback():
        assert services.get_node_ip_address() == "127.0.0.1"
    assert known == ray_constants.ENABLE_RAY_CLUSTER
    assert ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR == THIS_MACHINE_ONLY
    code = "import sys; from ray._private import ray_constants; sys.exit(ray_constants.ENABLE_RAY_CLUSTER)"
    assert subprocess.run([sys.executable, "-c", code], env={**os.environ, THIS_MACHINE_ONLY: "0"}).returncode == 0


def test_ray_train_starts_without_helpers(monkeypatch):
    """The callbacks that start actors are there under these names, and gone in the block, as is the watcher."""
    monkeypatch.delenv(NO_WATCHER[0], raising=False)
    trainer = TorchTrainer(print, scaling_config=ScalingConfig(num_workers=1))
    all_of_them = {type(callback).__name__ for callback in trainer._create_default_callbacks()}
    with few_helpers(trainer):
        assert {type(callback).__name__ for callback in trainer._create_default_callbacks()} == all_of_them - {*HELPERS}
        assert train_constants.get_env_vars_to_propagate()[train_constants.ENABLE_PREEMPTION_WATCHER_ENV_VAR] == "0"
    assert all_of_them > {*HELPERS}
    assert NO_WATCHER[0] not in os.environ


def test_ray_takes_our_settings():
    """A raylet ends at once on a setting that it does not know."""
    assert '"_system_config"' in inspect.getsource(ray.init)
    raylet = Path(ray.__file__).parent / "core" / "src" / "ray" / "raylet" / "raylet"
    with raylet.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as binary:
        assert all(binary.find(name.encode()) >= 0 for name in own_settings())


def test_the_token_lies_where_ray_writes_it(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    protect_token()  # nothing there: nothing to do
    token = authentication_token_setup._get_default_token_path()
    token.parent.mkdir()
    token.write_text("secret")
    token.chmod(0o644)
    protect_token()
    assert token.stat().st_mode & 0o777 == 0o600
    assert authentication_token_setup.AUTH_MODE_ENV_VAR.startswith(NEEDED_TO_JOIN)


def test_a_trial_is_a_driver_of_its_own():
    worker = {"HOME": "/home/me", "RAY_JOB_ID": "1", "RAY_AUTH_MODE": "token", "TUNE_X": "1"}
    worker |= dict.fromkeys(CHANGED_BY_RAY, "")
    joined = {"HOME": "/home/me", "RAY_AUTH_MODE": "token"}
    assert driver_variables(worker, "10.0.0.1:6379") == joined | {"RAY_ADDRESS": "10.0.0.1:6379"}
    here = driver_variables(worker, "127.0.0.1:6379")
    assert here == joined | {"RAY_ADDRESS": "127.0.0.1:6379", THIS_MACHINE_ONLY: "0"}


def test_tune_prints_through_our_callback_only(monkeypatch):
    from ray.tune.experimental.output import get_air_verbosity
    from ray.tune.utils.callback import _create_default_callbacks

    class Ours(ray_seams.TrialProgressCallback):
        """The study's own lines."""

    for name, value in QUIET_TUNE.items():
        monkeypatch.setenv(name, value)
    assert get_air_verbosity(0) is None
    ours = Ours()
    assert _create_default_callbacks([ours], air_verbosity=None) == [ours]


def test_an_actor_is_alive_until_it_is_killed(cluster):
    actor = ray.remote(num_cpus=0)(type("Idle", (), {"ping": lambda self: 1})).remote()
    assert ray.get(actor.ping.remote()) == 1
    assert is_alive(actor)
    ray.kill(actor)  # takes effect a little later
    end = time.monotonic() + 30
    while is_alive(actor) and time.monotonic() < end:
        time.sleep(0.1)
    assert not is_alive(actor)
    with pytest.raises(ray.exceptions.RayActorError):
        ray.get(actor.ping.remote())


def test_errors_are_named_and_opened_as_ray_makes_them():
    for name in DEATHS:
        assert hasattr(ray.exceptions, name) or name == WorkerHealthCheckFailedError.__name__
    lost = ValueError("lost")
    for wrapped in (
        WorkerGroupError("failed", {3: lost}),
        ControllerError(lost),
        WorkerHealthCheckFailedError("failed", lost),
        UserExceptionWithTraceback(lost, "Traceback"),
        ray.exceptions.RayTaskError("task", "Traceback", lost),
    ):
        assert lost in inner_errors(wrapped), type(wrapped).__name__
    assert not any(inner_errors(lost))


def test_an_actor_that_asks_to_end_may_be_kept(monkeypatch):
    """Ray's own `exit_actor` sets a flag that nothing takes back, before it raises."""
    source = Path(ray.actor.__file__).read_text(encoding="utf-8")  # workers of other tests have taken its place
    assert "set_current_actor_should_exit" in source.partition("def exit_actor")[2]
    monkeypatch.setattr(ray.actor, "exit_actor", ray.actor.exit_actor)
    contain_exit_actor()
    with pytest.raises(SystemExit, match="exit_actor"):
        ray.actor.exit_actor()


def test_ray_prints_what_its_processes_say_through_one_function(capsys, monkeypatch):
    """Where a driver hears of errors, and while nobody mutes it."""
    assert "print_to_stdstream(" in inspect.getsource(ray._private.worker.listen_error_messages)
    said = []
    monkeypatch.setattr(ray._private.worker, "print_to_stdstream", said.append)
    mute = False
    with muted_errors(lambda: mute):
        ray._private.worker.print_to_stdstream("heard")
        mute = True
        ray._private.worker.print_to_stdstream("muted")
    ray._private.worker.print_to_stdstream("heard again")
    assert said == ["heard", "heard again"]


def test_sigterm_is_told_from_an_exit_of_the_code_itself():
    assert "The process receives a SIGTERM." in inspect.getsource(ray._private.worker.Worker.main_loop)
    with pytest.raises(SystemExit) as ended:
        raise_sys_exit_with_custom_error_message("The process receives a SIGTERM.", exit_code=1)
    assert is_sigterm(ended.value)
    assert not is_sigterm(SystemExit(1)) and not is_sigterm(KeyboardInterrupt())


def test_ray_refuses_what_we_take_for_too_long(monkeypatch):
    monkeypatch.setenv("RAY_TMPDIR", "/somewhere")
    assert ray_seams.temporary_folder() == "/somewhere"
    assert "sockets" in inspect.getsource(ray._private.node) and "plasma_store" in inspect.getsource(ray._private.node)
    room = ray_seams.SOCKET_PATH_BYTES - len(ray_seams.SESSION)
    validate_socket_filepath(room * "x" + ray_seams.SESSION)
    with pytest.raises(OSError, match="AF_UNIX"):
        validate_socket_filepath((room + 1) * "x" + ray_seams.SESSION)


def test_ray_says_in_these_words_that_its_start_took_too_long():
    assert ray_seams.START_TIMED_OUT in inspect.getsource(ray._private.node)


def test_the_processes_and_the_folder_of_our_cluster_are_known(cluster):
    """Both processes live, and the folder is where Ray writes its logs."""
    assert {name: process.poll() for name, process in head_processes().items()} == dict.fromkeys(HEADS)
    assert (session_folder() / "logs" / "gcs_server.out").is_file()
