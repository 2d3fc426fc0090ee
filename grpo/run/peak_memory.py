"""Peak memory of a whole run: the driver and every process under it, Ray's own included."""

from __future__ import annotations

import threading

import psutil

GIB = 2**30


def total_memory_gb() -> float:
    """Memory of this process and all its descendants in GiB, shared pages counted once (PSS; RSS where unavailable)."""
    process = psutil.Process()
    return sum(_memory(child) for child in [process, *process.children(recursive=True)]) / GIB


def _memory(process: psutil.Process) -> int:
    try:
        info = process.memory_full_info()
        return getattr(info, "pss", info.rss)
    except (psutil.NoSuchProcess, psutil.ZombieProcess):  # ended between listing and reading
        return 0
    except psutil.AccessDenied:
        return process.memory_info().rss


class MemoryMonitor:
    """Context manager that samples `total_memory_gb` in a thread; `peak_gb` is the largest value seen."""

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
        while True:
            self.peak_gb = max(self.peak_gb, total_memory_gb())
            if self._stop.wait(self.interval_s):
                return
