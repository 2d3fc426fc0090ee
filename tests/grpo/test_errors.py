"""Only errors meant for users become one line; bugs keep their traceback."""

import errno
import threading

import pytest
import ray
import torch
import typer
from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError

from blip3o_grpo.configs import ConfigError
from blip3o_grpo.errors import OutOfDisk, OutOfMemory, WorkerDiedError, one_line_errors, user_error
from blip3o_grpo.rollout import RolloutError
from blip3o_grpo.run.peak_memory import MemoryMonitor, total_memory_gb


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


SHORTAGES = {
    "GPU memory is full: CUDA out of memory. Tried to allocate 2.00 GiB. Lower": torch.OutOfMemoryError(
        "CUDA out of memory. Tried to allocate 2.00 GiB. \nand much more"
    ),
    "out of memory: [enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory": RuntimeError(
        "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"
    ),
    "out of memory: Python": MemoryError(),
    "its machine ran out of memory (Ray's memory monitor)": ray.exceptions.OutOfMemoryError("Task was killed ..."),
}


@pytest.mark.parametrize("text", SHORTAGES)
def test_want_of_memory_is_one_line_wherever_it_comes_from(text, capsys):
    error = Failures({0: Wrapped(SHORTAGES[text])})
    assert isinstance(user_error(error), OutOfMemory)

    @one_line_errors
    def command():
        raise error

    with pytest.raises(typer.Exit) as ended:
        command()
    assert ended.value.exit_code == 2
    shown = capsys.readouterr().err
    assert text in shown and shown.count("\n") == 1


def test_a_stage_that_ran_out_of_memory_says_so(capsys):
    @one_line_errors
    def command():
        try:
            raise ray.exceptions.OutOfMemoryError("Task was killed due to the node running low on memory.")
        except ray.exceptions.RayError as error:
            raise RolloutError("stage decode failed, prompts 'a'\nTraceback\nmany lines") from error

    with pytest.raises(typer.Exit):
        command()
    shown = capsys.readouterr().err
    assert shown.startswith(
        "error: stage decode failed, prompts 'a': a worker was killed because its machine ran out of"
    )


def test_a_refused_write_of_a_library_is_one_line():
    error = user_error(Wrapped(OSError(errno.ENOSPC, "No space left on device", "/data/cache")))
    assert isinstance(error, OutOfDisk) and str(error) == "/data/cache: No space left on device"
    assert user_error(OSError(errno.ENOENT, "No such file or directory")) is None


def test_a_dead_process_is_one_line_unless_there_is_a_reason():
    dead = WorkerHealthCheckFailedError("rank 0", ray.exceptions.ActorDiedError())
    assert isinstance(user_error(Failures({0: dead})), WorkerDiedError)
    ours = ConfigError("wrong key")
    assert user_error(Failures({0: dead, 1: Wrapped(ours)})) is ours


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


def test_the_costly_count_is_asked_for_only_when_the_cheap_one_has_grown(monkeypatch):
    """Reading the shared pages of all processes every other second took an eighth of a core."""
    cheap, exact, done = iter([100, 100, 104, 106, 90, 110, 112]), [], threading.Event()

    def count():
        try:
            return next(cheap)
        except StopIteration:
            done.set()
            return 0

    monkeypatch.setattr("blip3o_grpo.run.peak_memory._cheap_count", count)
    monkeypatch.setattr("blip3o_grpo.run.peak_memory.total_memory_gb", lambda: exact.append(len(exact)) or len(exact))
    with MemoryMonitor(interval_s=0.001) as memory:
        done.wait()
    assert len(exact) == 3 and memory.peak_gb == 3  # at 100, 106 and 112
