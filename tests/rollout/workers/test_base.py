"""A call that hangs leaves its stack before its process is replaced; one that ends in time leaves nothing."""

import faulthandler
import time

import pytest
import ray

from blip3o_grpo.rollout.messages import Verdict
from blip3o_grpo.rollout.workers.base import Worker


class Notes:
    """Stands in for the handle of a board with the given limits."""

    def __init__(self, **limits_s):
        self.verdict = Verdict(limits_s=limits_s)
        self.begins = self.ends = self.enters = self

    def remote(self, *_):
        return self.verdict


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


def test_a_call_that_hangs_leaves_its_stack_in_the_workers_log(toy, capfd):
    def reward_that_waits_for_its_server():
        text = ""
        while "Timeout" not in text or "most recent call first" not in text:
            time.sleep(0.01)
            text += capfd.readouterr().err
        return text

    with toy(score=0.1).busy("score"):
        assert "reward_that_waits_for_its_server" in reward_that_waits_for_its_server()


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


@pytest.mark.parametrize("limit", [1e-9, 1e12, float("inf")])
def test_a_limit_of_any_size_can_be_waited_for(toy, limit):
    with toy(score=limit).busy("score"):
        pass
