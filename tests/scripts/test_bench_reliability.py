"""The overhead benchmark: both settings take turns, the sums are right, and the checks are back afterwards."""

import os

import pytest

from blip3o_grpo.rollout.workers.base import Worker
from blip3o_grpo.run.manifest import fault
from blip3o_grpo.training.guards import Guards
from scripts.bench_reliability import Clock, Turns, checks_off, hide_board, show_board, sizes_only, summarise


class State:
    def __init__(self, step):
        self.global_step = step


def test_the_settings_take_turns_and_the_checks_come_back():
    fsync, guard = os.fsync, Guards.on_log
    clock = Clock()
    turns = Turns(clock, [])
    off = []
    for step in range(10):
        turns.on_step_begin(None, State(step), None)
        off.append(os.fsync is not fsync and Guards.on_log is not guard)
        turns.on_step_end(None, State(step), None)
        turns.on_save(None, State(step + 1), None)
    assert off == [False] * 3 + [True] * 2 + [False] * 2 + [True] * 2 + [False]
    assert len(clock.steps["on"]) == len(clock.saves["off"]) == 4
    assert os.fsync is fsync and Guards.on_log is guard


def test_workers_without_a_board_announce_nothing_until_it_is_back():
    class Quiet(Worker):
        def start(self): ...

        def load(self, values): ...

    worker = Quiet("sampler-0")
    worker._board = board = object()  # any call to it would fail
    hide_board(worker)
    with worker.busy("sample"):
        assert worker._board is None
    show_board(worker)
    assert worker._board is board


def test_a_checkpoint_counts_as_often_as_one_is_written():
    clock = Clock({"on": [1.02, 1.04], "off": [1.0, 1.0]}, {"on": [0.3, 0.3], "off": [0.2, 0.2]})
    result = summarise(clock, every_steps=10)
    assert result["overhead"] == pytest.approx((0.03 + 0.01) / 1.02)
    assert result["noise"] == pytest.approx(0.01 / 1.02)


def test_without_checks_a_checkpoint_is_written_all_the_same(tmp_path):
    (tmp_path / "model.safetensors").write_text("weights")
    with checks_off([]):
        sizes_only(tmp_path, 3)
    assert fault(tmp_path, 3, full=False) is None
