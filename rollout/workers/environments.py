"""Rewards in an environment of their own: what Ray is asked for, and whether it can work.

Ray sets up packages, variables and interpreters by itself. Checked here is what it would report late, or never: it
restarts an interpreter that cannot run its workers for ever, and says nothing.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import ray

from blip3o_grpo.configs import ConfigError, RewardSection
from blip3o_grpo.rollout.types import RolloutError
from blip3o_grpo.rollout.workers.reward import RewardWorker

PROBE = (
    "import json, sys, numpy, ray, lazy_loader;"
    "print(json.dumps([[*sys.version_info[:2]], ray.__version__, numpy.__version__]))"
)
PROBE_TIMEOUT_S = 300
"""Generous, because `py_executable` may be a package manager's command that installs first."""


OTHER_PYTHON = ("py_executable", "conda", "pip", "uv")
"""Keys of a runtime environment by which workers get another interpreter."""


def reward_environment(
    reward: RewardSection, variables: Mapping[str, str], import_root: Path | None = None
) -> dict[str, Any]:
    """Ray runtime environment of a reward's workers: its own, whose variables win, over ours.

    Args:
        reward: the reward.
        variables: ours.
        import_root: what `make_import_root` made; workers of another interpreter find this project there.
    """
    own = reward.runtime_env or {}
    merged = {**variables, **(own.get("env_vars") or {})}
    if import_root is not None and any(key in own for key in OTHER_PYTHON):
        others = merged.get("PYTHONPATH", os.environ.get("PYTHONPATH", ""))
        merged["PYTHONPATH"] = os.pathsep.join([str(import_root), *([others] if others else [])])
    return {**own, "env_vars": merged}


def make_import_root(folder: Path) -> Path:
    """A folder from which nothing but `blip3o_grpo` can be imported, made of links to where it lies.

    The folder that holds the project itself may be `site-packages`, whose other packages belong to this interpreter.
    Every machine of the cluster must see the folder, so it lies in the run's.
    """
    package = folder / "blip3o_grpo"
    package.mkdir(parents=True, exist_ok=True)
    (project,) = importlib.util.find_spec("blip3o_grpo").submodule_search_locations
    places = [*Path(project).iterdir()]
    for room in ("configs", "policies", "rewards", "rollout"):  # an editable install may keep them elsewhere
        places += [Path(place) for place in importlib.util.find_spec(f"blip3o_grpo.{room}").submodule_search_locations]
    wanted = {place.name: str(place.resolve()) for place in places if place.name != "__pycache__"}
    for name, target in wanted.items():
        link = package / name
        if not link.is_symlink() or os.readlink(link) != target:
            link.unlink(missing_ok=True)
            link.symlink_to(target)
    return folder


def check_environment(reward: RewardSection) -> None:
    """Have Ray check the values of a reward's `runtime_env`; starts nothing.

    Raises:
        ConfigError: naming the reward, with Ray's reason.
    """
    environment = dict(reward.runtime_env or {})
    if not isinstance(environment.get("py_executable", ""), str):
        raise ConfigError(f"reward {reward.name!r}: runtime_env.py_executable must be a command, in one string")
    try:
        ray.remote(RewardWorker).options(runtime_env=environment)
    except (TypeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"reward {reward.name!r}: runtime_env: {reason}") from error


def check_reward_interpreter(reward: RewardSection) -> None:
    """Run the interpreter that `py_executable` names and compare its versions with ours.

    Raises:
        RolloutError: it does not run, lacks Ray, NumPy or lazy_loader, or has others than workers and driver can share.
    """
    command = (reward.runtime_env or {}).get("py_executable")
    if command is None:
        return
    about = f"reward {reward.name!r}: py_executable {command!r}"
    variables = {name: os.path.expandvars(value) for name, value in (reward.runtime_env.get("env_vars") or {}).items()}
    try:
        probe = subprocess.run(  # by bash, as Ray does it
            ["bash", "-c", f"exec {command} -c {shlex.quote(PROBE)}"],
            env={**os.environ, **variables},
            capture_output=True,
            text=True,
            timeout=PROBE_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired as error:
        raise RolloutError(f"{about} did not start within {PROBE_TIMEOUT_S} s") from error
    if probe.returncode:
        reason = (probe.stderr.strip().splitlines() or [f"exit code {probe.returncode}"])[-1]
        needs = "; workers need Ray, NumPy and lazy_loader there" if "ModuleNotFoundError" in reason else ""
        raise RolloutError(f"{about} cannot run a worker: {reason}{needs}")
    python, ray_version, numpy_version = json.loads(probe.stdout.strip().splitlines()[-1])
    for what, theirs, ours in (
        ("Python", ".".join(map(str, python)), ".".join(map(str, sys.version_info[:2]))),
        ("Ray", ray_version, ray.__version__),
        ("NumPy", numpy_version.split(".")[0], np.__version__.split(".")[0]),
    ):
        if theirs != ours:
            raise RolloutError(f"{about} has {what} {theirs}; workers need {what} {ours}, as the driver has")
