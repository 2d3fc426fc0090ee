"""The callback that writes metrics.jsonl: crashes and resumes leave neither gaps nor doubles."""

import json
from types import SimpleNamespace

import numpy as np

from blip3o_grpo.run.metrics import read_metrics
from blip3o_grpo.training.callbacks import MetricsFile


def state(step):
    return SimpleNamespace(global_step=step, is_world_process_zero=True)


def test_a_resumed_file_has_neither_gaps_nor_doubles(tmp_path):
    path = tmp_path / "metrics.jsonl"
    first = MetricsFile(path)
    first.on_train_begin(None, state(0), None)
    for step in (1, 2, 3):
        first.on_log(
            None, state(step), None, logs={"loss": 0.0, "reward/mean": float(step), "epoch": 0.1, "odd": np.nan}
        )
    with path.open("a") as file:
        file.write('{"step": 4, "rew')  # a crash in the middle of a line
    second = MetricsFile(path)
    second.on_train_begin(None, state(2), None)
    second.on_log(None, state(3), None, logs={"loss": 0.0, "reward/mean": 30.0})
    second.on_log(None, state(3), None, logs={"train_runtime": 1.0})  # transformers' closing line is no step
    assert [(line["step"], line["reward/mean"]) for line in read_metrics(path)] == [(1, 1.0), (2, 2.0), (3, 30.0)]
    first = {"step": 1, "loss": 0.0, "reward/mean": 1.0, "odd": None}
    assert json.loads(path.read_text().splitlines()[0]) == first


def test_a_further_step_on_the_same_images_has_its_line(tmp_path):
    callback = MetricsFile(tmp_path / "metrics.jsonl")
    callback.on_log(None, state(1), None, logs={"loss": 0.0, "reward/mean": 0.5})
    callback.on_log(None, state(2), None, logs={"loss": 0.1})
    lines = read_metrics(tmp_path / "metrics.jsonl")
    assert lines == [{"step": 1, "loss": 0.0, "reward/mean": 0.5}, {"step": 2, "loss": 0.1}]


def test_ranks_other_than_zero_write_nothing(tmp_path):
    other = SimpleNamespace(global_step=0, is_world_process_zero=False)
    callback = MetricsFile(tmp_path / "metrics.jsonl")
    callback.on_train_begin(None, other, None)
    callback.on_log(None, other, None, logs={"loss": 0.0, "reward/mean": 1.0})
    assert not list(tmp_path.iterdir())
