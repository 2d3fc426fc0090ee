"""Metric names follow the project, and what is written to metrics.jsonl is what is read from it."""

import json
import math

import pytest

from blip3o_grpo.run.files import RunFileError
from blip3o_grpo.run.metrics import append_metrics, finite, forget_later, read_metrics, rename


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("reward", "reward/mean"),
        ("reward_std", "reward/std"),
        ("rewards/ocr/mean", "reward/ocr"),
        ("rewards/ocr/std", "reward/ocr_std"),
        ("kl", "kl/reference"),
        ("entropy", "entropy"),
        ("clip_ratio/low_mean", "clip_ratio/low_mean"),
    ],
)
def test_trl_names_become_ours(theirs, ours):
    assert rename(theirs) == ours


@pytest.mark.parametrize(
    "name",
    [
        "completions/mean_length",
        "num_tokens",
        "step_time",
        "frac_reward_zero_std",
        "sampling/sampling_logp_difference/max",
        "sampling/importance_sampling_ratio/max",
    ],
)
def test_what_says_nothing_about_image_tokens_or_is_wrong_here_is_dropped(name):
    assert rename(name) is None


def test_what_was_written_is_read_step_by_step(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert read_metrics(path) == []
    append_metrics(path, 1, {"reward/mean": 0.5, "kl/reference": math.nan, "epoch": 0.1, "note": "text", "late": None})
    append_metrics(path, 2, {"reward/mean": 1})
    assert read_metrics(path) == [
        {"step": 1, "reward/mean": 0.5, "kl/reference": None, "late": None},
        {"step": 2, "reward/mean": 1},
    ]
    assert len(path.read_text().splitlines()) == 2


def test_a_line_cut_off_by_a_crash_is_left_out_and_any_other_damage_is_named(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3, "rew')
    assert [line["step"] for line in read_metrics(path)] == [1, 2]
    path.write_bytes(b'{"step": 1}\n{"step": 2, "\xff')  # the crash may cut a character in two
    assert [line["step"] for line in read_metrics(path)] == [1]
    path.write_text('{"step": 1}\n{"stop": 2}\n{"step": 3}\n')
    with pytest.raises(RunFileError, match=r"metrics\.jsonl:2: .*step"):
        read_metrics(path)


def test_lines_after_the_step_of_a_checkpoint_are_forgotten(tmp_path):
    path = tmp_path / "metrics.jsonl"
    for step in (1, 2, 3):
        append_metrics(path, step, {"reward/mean": step / 10})
    forget_later(path, 2)
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"step": 1, "reward/mean": 0.1},
        {"step": 2, "reward/mean": 0.2},
    ]
    append_metrics(path, 3, {"reward/mean": 0.9})
    assert read_metrics(path)[2] == {"step": 3, "reward/mean": 0.9}
    forget_later(path, 0)
    assert path.read_text() == ""


def test_only_numbers_are_written_and_what_json_cannot_say_is_null():
    given = {"a": 1, "b": 0.5, "c": math.inf, "d": -math.inf, "e": math.nan, "f": None, "g": "text", "epoch": 2.0}
    assert finite(given) == {"a": 1, "b": 0.5, "c": None, "d": None, "e": None, "f": None}
