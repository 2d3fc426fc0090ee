"""A call that hangs leaves its stack before its process is replaced; one that ends in time leaves nothing."""

import asyncio
import faulthandler
import time

import pytest
import ray
from ray._raylet import raise_sys_exit_with_custom_error_message

from blip3o_grpo.rollout.messages import Verdict
from blip3o_grpo.rollout.workers import base
from blip3o_grpo.rollout.workers.base import CallEndedError, Worker


class Notes:
    """Stands in for the handle of a board with the given limits."""

    def __init__(self, **limits_s):
        self.verdict = Verdict(limits_s=limits_s)
        self.begins = self.enters = self
        self.ends = Ended()

    def remote(self, *_):
        return self.verdict


class Ended:
    """Counts what the board is told of calls that are over."""

    def __init__(self):
        self.calls = []

    def remote(self, _, call):
        self.calls.append(call)


class Toy(Worker):
    """Starts and works as its test says."""

    def start(self):
        pass

    def load(self, values):
        pass


@pytest.fixture
def toy(monkeypatch):
    """Builds a worker whose board has these limits, without Ray."""
    monkeypatch.setattr(ray, "get", lambda answer: answer)
    monkeypatch.setattr(ray, "get_runtime_context", lambda: ray)
    monkeypatch.setattr(ray, "get_task_id", lambda: "call", raising=False)

    def build(**limits_s):
        worker = Toy("toy-0")
        worker._board = Notes(**limits_s)
        return worker

    yield build
    faulthandler.cancel_dump_traceback_later()


def test_a_call_that_hangs_leaves_its_stack_in_the_workers_log(toy, tmp_path, monkeypatch):
    assert base.STDERR == 2
    log = tmp_path / "log"  # pytest's own capture loses what is written while it is read

    def reward_that_waits_for_its_server():
        end = time.monotonic() + 30
        while "reward_that_waits_for_its_server" not in log.read_text() and time.monotonic() < end:
            time.sleep(0.01)
        return log.read_text()

    with log.open("w") as file:
        monkeypatch.setattr(base, "STDERR", file.fileno())
        with toy(score=0.1).busy("score"):
            text = reward_that_waits_for_its_server()
    assert "Timeout" in text and "reward_that_waits_for_its_server" in text  # among the stacks of all threads


def test_the_stack_is_due_a_little_before_the_limit_of_the_stage_and_never_after_the_call(toy, monkeypatch):
    due = []
    monkeypatch.setattr(faulthandler, "dump_traceback_later", lambda seconds, file: due.append(round(seconds, 3)))
    monkeypatch.setattr(faulthandler, "cancel_dump_traceback_later", lambda: due.append(None))
    worker = toy(score=1800, start=5, decode=None)
    with worker.busy("score"), worker.busy("start"):
        assert due[-2:] == [None, 4.5]
    assert due == [None, 1790, None, 4.5, None, 1790, None]
    due.clear()
    with pytest.raises(OSError), worker.busy("score"):
        raise OSError("the model server is gone")
    assert due == [None, 1790, None]
    due.clear()
    with worker.busy("decode"):  # without a limit nothing is replaced
        pass
    assert due == [None, None]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (SystemExit(0), "SystemExit: 0"),
        (SystemExit("bye"), "SystemExit: bye"),
        (SystemExit(), "SystemExit"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (GeneratorExit(), "GeneratorExit"),
        (asyncio.CancelledError("late"), "CancelledError: late"),
    ],
)
def test_what_is_no_exception_ends_its_call_and_not_the_worker(toy, error, said):
    worker = toy(score=10)
    with pytest.raises(CallEndedError, match=f"^{said}$"), worker.busy("score"), worker.busy("start"):
        raise error
    assert worker._board.ends.calls == ["call"] and worker._stage is None
    with worker.busy("score"):
        pass


def test_half_of_a_surrogate_pair_is_escaped_before_ray_has_to_send_it(toy):
    with pytest.raises(CallEndedError, match=r"^ValueError: half \\ud83d$"), toy(score=10).busy("score"):
        raise ValueError("half \ud83d")
    with pytest.raises(OSError, match="^said well$") as failed, toy(score=10).busy("score"):
        raise OSError("said well") from ValueError("half \ud83d")
    assert failed.value.__cause__ is None


def test_a_sigterm_ends_the_worker_and_the_board_is_not_told_that_the_call_is_over(toy):
    worker = toy(score=10)
    with pytest.raises(SystemExit), worker.busy("score"):
        raise_sys_exit_with_custom_error_message("The process receives a SIGTERM.", exit_code=1)
    assert worker._board.ends.calls == []


@pytest.mark.parametrize("limit", [1e-9, 1e12, float("inf")])
def test_a_limit_of_any_size_can_be_waited_for(toy, limit):
    with toy(score=limit).busy("score"):
        pass
