"""A command and every process that it started: the CPU time of each kind, and a stop of all of them for a while."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import suppress

import psutil

ACTOR = re.compile(r"ray::(\w+)")
"""How Ray calls the process of an actor; `.METHOD` follows while it works."""


class ProcessTree:
    """The process `pid` and its descendants, whenever they were started.

    Args:
        pid: of the command.
        kinds: of processes, by the class of the Ray actor that they are, which their own children share.
        others: kind of those that are no such actor; the command itself is `driver`.
    """

    def __init__(self, pid: int, kinds: Mapping[str, str], others: str):
        self._root = psutil.Process(pid)
        self._kinds, self._others = kinds, others
        self._stopped: list[psutil.Process] = []
        self._known: list[psutil.Process] = []

    def stop(self) -> None:
        """SIGSTOP to all: the command first, so that it cannot take the others for hung."""
        self._stopped = []
        found = [self._root, *self._known]
        while found:
            for process in found:
                with suppress(psutil.NoSuchProcess):
                    process.suspend()
            self._stopped += found
            found = [process for process in self._processes() if process not in self._stopped]
        self._known = self._stopped[1:]

    def go_on(self) -> None:
        """SIGCONT to what was stopped, the command last."""
        for process in [*self._stopped[1:], *self._stopped[:1]]:
            with suppress(psutil.NoSuchProcess):
                process.resume()
        self._stopped = []

    def kill(self) -> None:
        """SIGKILL to all."""
        for process in self._processes():
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def cpu_seconds(self) -> dict[psutil.Process, float]:
        """User and system seconds of every process that is there; of one that has ended, nobody can ask any more."""
        seconds = {}
        for process in self._processes():
            with suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                seconds[process] = times.user + times.system
        return seconds

    def spent(self, before: Mapping[psutil.Process, float], after: Mapping[psutil.Process, float]) -> dict[str, float]:
        """CPU seconds by kind between two answers of `cpu_seconds`."""
        kinds, spent = self.kinds(after), defaultdict(float)
        for process, seconds in after.items():
            spent[kinds[process]] += seconds - before.get(process, 0.0)
        return dict(spent)

    def kinds(self, processes: Iterable[psutil.Process]) -> dict[psutil.Process, str]:
        """What each of these processes is."""
        by_pid = {process.pid: process for process in processes}
        return {process: self._kind(process, by_pid) for process in by_pid.values()}

    def _processes(self) -> list[psutil.Process]:
        with suppress(psutil.NoSuchProcess):
            return [self._root, *self._root.children(recursive=True)]
        return []

    def _kind(self, process: psutil.Process, by_pid: Mapping[int, psutil.Process]) -> str:
        if process == self._root:
            return "driver"
        with suppress(psutil.NoSuchProcess):
            while process is not None and process != self._root:
                actor = ACTOR.match(" ".join(process.cmdline()))
                if actor and actor[1] in self._kinds:
                    return self._kinds[actor[1]]
                process = by_pid.get(process.ppid())
        return self._others
