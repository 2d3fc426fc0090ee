"""A Ray cluster of a run's own: watched while the run works, and gone with its processes and its folder afterwards.

Ray itself leaves its session folder for ever, and where its `gcs_server` or raylet dies it fills the terminal, lets its
agents live on for a minute, and ends this process before anybody can say why. A cluster that was joined, and sessions
of other programs, are never touched.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import threading
import time
from pathlib import Path
from types import TracebackType

import psutil
import ray
from rich.console import Console

from blip3o_grpo.errors import running
from blip3o_grpo.rewards.redaction import redact
from blip3o_grpo.rollout.ray_seams import head_processes, muted_errors, session_folder
from blip3o_grpo.terminal import show

POLL_S = 0.05
STOPPED_S = 30.0
"""How long `gcs_server` or the raylet may be stopped (SIGSTOP) before the cluster counts as lost."""
MARK = "blip3o-grpo.json"
"""In a session folder: which process it belongs to."""
EVIDENCE = "ray-logs"
"""In the `failures` of a run folder: the logs that a failure needs, of the last cluster that had one."""
TAIL_BYTES = 64 * 1024
"""Of one log that is kept."""
EVIDENCE_BYTES = 4 * 2**20
"""Of all logs that are kept."""
HANG = b"Timeout ("
"""How faulthandler begins the stacks of a worker whose call takes too long."""
NAMES = b":"
"""Start of the lines by which Ray names jobs and actors in the logs of all workers."""


class OwnCluster:
    """Context manager around the work on a cluster that `ray.init` has just started in this process.

    Once `gcs_server` or the raylet is gone, this process ends at once, in one line and with exit code 2: Ray's library
    aborts it at its next access to an object, or a minute later, and nobody could say anything any more.

    Args:
        evidence: folder for logs, replaced where there are some to keep.
    """

    def __init__(self, evidence: Path):
        self._evidence = evidence
        self._session = session_folder()
        self._heads = head_processes()
        self._stopped: dict[str, float] = {}
        self._leaving = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True, name="own-cluster")

    def __enter__(self) -> OwnCluster:
        me = psutil.Process()
        (self._session / MARK).write_text(json.dumps({"pid": me.pid, "started": me.create_time()}), encoding="utf-8")
        self._muted = muted_errors(lambda: self._loss() is not None)
        self._muted.__enter__()
        self._watcher.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._leaving.set()  # from here on, the ends of Ray's processes are ours
        self._watcher.join()
        if lost := self._loss():
            self._leave_at_once(lost)
        failed = kind is not None and not issubclass(kind, KeyboardInterrupt | SystemExit)
        with contextlib.suppress(OSError):  # what is wrong with the disk is told by what failed for it
            save_evidence(self._session, self._evidence, everything=failed)
        ray.shutdown()
        end_session(self._session)
        self._muted.__exit__(None, None, None)

    def _watch(self) -> None:
        while not self._leaving.wait(POLL_S):
            if lost := self._loss():
                self._leave_at_once(lost)

    def _loss(self) -> str | None:
        """What was lost, in words; None: nothing."""
        for name, process in self._heads.items():
            if (code := process.poll()) is not None:
                how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
                return f"{name} {how}"
            with contextlib.suppress(psutil.Error):
                if psutil.Process(process.pid).status() != psutil.STATUS_STOPPED:
                    self._stopped.pop(name, None)
                elif time.monotonic() - self._stopped.setdefault(name, time.monotonic()) > STOPPED_S:
                    return f"{name} was stopped for more than {STOPPED_S:g} s"
        return None

    def _leave_at_once(self, lost: str) -> None:
        """Say what was lost, keep its logs, and end this process as its command would have."""
        console = Console(stderr=True)
        with contextlib.suppress(OSError):
            console.show_cursor(True)
            text = f"the Ray cluster that this command had started was lost ({lost}); its logs are in {self._evidence}"
            show(console, ("error:", "bold red"), f" {text}; {running.words()}")
        with contextlib.suppress(OSError):
            save_evidence(self._session, self._evidence, everything=True)
        end_session(self._session)
        os._exit(2)


def processes_of(session: Path) -> list[psutil.Process]:
    """Processes with an open file in a session's folder, such as their logs; not this one."""
    inside = f"{session}{os.sep}"
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid != os.getpid() and any(file.path.startswith(inside) for file in process.open_files()):
                found.append(process)
    return found


def end_processes(session: Path) -> None:
    """End what belongs to a session: every process that has a file of its folder open, but this one."""
    for _ in range(3):  # a process that is being started is seen in the second round
        found = processes_of(session)
        for process in found:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(found, timeout=2)
        if not found:
            return


def end_session(session: Path) -> None:
    """End a session's processes, remove its folder, and Ray's link to the newest one if it points there."""
    end_processes(session)
    latest = session.parent / "session_latest"
    with contextlib.suppress(OSError):
        if latest.is_symlink() and Path(os.readlink(latest)) == session:
            latest.unlink()
    shutil.rmtree(session, ignore_errors=True)


def remove_stale_sessions(parent: Path) -> None:
    """Remove session folders with our mark whose owner was killed and none of whose processes is left."""
    for mark in parent.glob(f"session_*/{MARK}"):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            owner = json.loads(mark.read_text(encoding="utf-8"))
            gone = not mark.parent.is_symlink() and not _lives(owner["pid"], owner["started"])
            if gone and not processes_of(mark.parent):
                end_session(mark.parent)


def _lives(pid: int, started: float) -> bool:
    try:
        return abs(psutil.Process(pid).create_time() - started) < 1
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:
        return True


def save_evidence(session: Path, target: Path, *, everything: bool) -> None:
    """Keep the ends of the logs of workers that hung; with `everything`, of all workers and of Ray itself.

    Nothing is written where there is nothing to keep. What was kept before is replaced; secrets are hidden.
    """
    kept, left = {}, EVIDENCE_BYTES
    for log in _logs(session / "logs", everything):
        tail = redact(_tail(log).decode("utf-8", errors="replace")).encode()[-left:]
        if left > 0 and any(line and not line.startswith(NAMES) for line in tail.splitlines()):
            kept[log.name] = tail
            left -= len(tail)
    if kept:
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        for name, tail in kept.items():
            (target / name).write_bytes(tail)


def _logs(folder: Path, everything: bool) -> list[Path]:
    """Logs worth keeping, the most telling first: of workers that hung, then the last that were written to."""
    workers = [log for log in folder.glob("worker-*") if log.suffix in (".err", ".out")]
    hung = [log for log in workers if HANG in _tail(log)]
    if not everything:
        return hung
    ray_logs = [log for name in ("raylet", "gcs_server", "runtime_env_setup-") for log in folder.glob(f"{name}*")]
    others = sorted((log for log in workers if log not in hung), key=lambda log: -log.stat().st_mtime)
    return [*hung, *ray_logs, *others]


def _tail(log: Path) -> bytes:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - TAIL_BYTES))
        return file.read(TAIL_BYTES)
