"""Rewards in an environment of their own: what Ray is asked for, and whether it can work.

Ray sets up packages, variables and interpreters by itself. Checked here is what it would report late, or never: it
restarts an interpreter that cannot run its workers for ever, and says nothing.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import ray

from blip3o_grpo.configs import ConfigError, RewardSection
from blip3o_grpo.rollout.types import RolloutError
from blip3o_grpo.rollout.workers.reward import RewardWorker

PROBE = "import json, sys, numpy, ray; print(json.dumps([[*sys.version_info[:2]], ray.__version__, numpy.__version__]))"
PROBE_TIMEOUT_S = 300
"""Generous, because `py_executable` may be a package manager's command that installs first."""


def reward_environment(reward: RewardSection, variables: Mapping[str, str]) -> dict[str, Any]:
    """Ray runtime environment of a reward's workers: its own, whose variables win, over ours."""
    own = reward.runtime_env or {}
    return {**own, "env_vars": {**variables, **(own.get("env_vars") or {})}}


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
        RolloutError: it does not run, has no Ray or NumPy, or has others than workers and driver can share.
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
        raise RolloutError(f"{about} cannot run a worker: {reason}")
    python, ray_version, numpy_version = json.loads(probe.stdout.strip().splitlines()[-1])
    for what, theirs, ours in (
        ("Python", ".".join(map(str, python)), ".".join(map(str, sys.version_info[:2]))),
        ("Ray", ray_version, ray.__version__),
        ("NumPy", numpy_version.split(".")[0], np.__version__.split(".")[0]),
    ):
        if theirs != ours:
            raise RolloutError(f"{about} has {what} {theirs}; workers need {what} {ours}, as the driver has")
