"""Only errors meant for users become one line; bugs keep their traceback."""

from configs import ConfigError
from grpo.errors import user_error
from grpo.memory import MemoryMonitor, total_memory_gb


class Wrapped(Exception):
    def __init__(self, cause):
        super().__init__("wrapped")
        self.cause = cause


class Failures(Exception):
    def __init__(self, failures):
        super().__init__("failed")
        self.worker_failures = failures


def test_our_errors_are_found_inside_rays():
    ours = ConfigError("wrong key")
    assert user_error(ours) is ours
    assert user_error(Wrapped(ours)) is ours
    assert user_error(Failures({0: RuntimeError("gloo"), 1: Wrapped(ours)})) is ours


def test_bugs_are_not_ours():
    assert user_error(ValueError("a library's")) is None
    assert user_error(KeyError("x")) is None


def test_memory_counts_this_process_and_its_peak():
    with MemoryMonitor(interval_s=0.05) as memory:
        block = bytearray(200 * 2**20)
        held = total_memory_gb()
        while memory.peak_gb < held * 0.9:
            pass
    assert memory.peak_gb > 0.2
    del block
