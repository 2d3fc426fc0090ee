"""Kills workers in the middle of what they do, for tests."""

import os
import threading
import time
from contextlib import contextmanager

import psutil
import ray


def pid_of(worker):
    """Process id of an actor."""
    return ray.get(worker.__ray_call__.remote(lambda _: os.getpid()))


@contextmanager
def killing(*victims):
    """SIGKILL each (process id, method, seconds) that long after its actor begins to work on the method."""
    threads = [threading.Thread(target=_kill, args=victim) for victim in victims]
    for thread in threads:
        thread.start()
    yield
    for thread in threads:
        thread.join(timeout=60)
        assert not thread.is_alive(), "a victim never began the method it was to be killed in"


def _kill(pid, method, seconds):
    process = psutil.Process(pid)  # remembers when it started, so it never kills another with the same number
    while not process.cmdline()[0].endswith(f".{method}"):  # Ray shows the running method in the process title
        time.sleep(0.001)
    time.sleep(seconds)
    process.kill()
