"""Peak memory of a whole run: the driver and every process under it, Ray's own included.

Pages that processes share count once, which only their PSS tells; the kernel walks all pages of a process for it. So it
is asked for only when a cheap count has grown since the last time.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator

import psutil

GIB = 2**30
GROWTH = 1.05
"""Of the cheap count, from which on the exact one is asked again: the peak may be missed by about this much."""


def total_memory_gb() -> float:
    """Memory of this process and all its descendants in GiB, shared pages counted once (PSS; RSS where unavailable)."""
    return sum(_memory(process) for process in _family()) / GIB


def _family() -> Iterator[psutil.Process]:
    process = psutil.Process()
    yield process
    yield from process.children(recursive=True)


def _memory(process: psutil.Process) -> int:
    try:
        info = process.memory_full_info()
        return getattr(info, "pss", info.rss)
    except (psutil.NoSuchProcess, psutil.ZombieProcess):  # ended between listing and reading
        return 0
    except psutil.AccessDenied:
        return process.memory_info().rss


def _cheap_count() -> int:
    """Bytes that grow when memory does: what each process has for itself, and the largest shared part of any."""
    own, shared = 0, 0
    for process in _family():
        try:
            info = process.memory_info()
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
        mapped = getattr(info, "shared", 0)  # Linux tells
        own, shared = own + info.rss - mapped, max(shared, mapped)
    return own + shared


class MemoryMonitor:
    """Context manager that watches this process's family in a thread; `peak_gb` is the largest memory seen."""

    def __init__(self, interval_s: float = 2.0):
        self.interval_s = interval_s
        self.peak_gb = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> MemoryMonitor:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        counted = 0
        while True:
            count = _cheap_count()
            if count > counted * GROWTH:
                self.peak_gb, counted = max(self.peak_gb, total_memory_gb()), count
            if self._stop.wait(self.interval_s):
                return
