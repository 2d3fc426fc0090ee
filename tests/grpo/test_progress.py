"""What a person sees while something runs: on a terminal, in a pipe, on a narrow screen, after a resume."""

import io
import os
import pty
import re
import threading

import pytest
from rich.console import Console

from blip3o_grpo.configs import RewardSection
from blip3o_grpo.evaluation.heldout import Evaluation
from blip3o_grpo.evaluation.statistics import estimate
from blip3o_grpo.progress import Bar, Pace, ProgressDisplay, activity, announce, describe, duration

CONTROL = re.compile(r"\x1b|\r")
LONG = "a_reward_whose_name_is_much_longer_than_forty_columns_allow"


class Messages:
    """What rank 0 sends, in the place of Ray's queue."""

    def __init__(self, *messages):
        self.left = list(messages)

    def get(self, timeout):
        if self.left:
            return self.left.pop(0)
        from queue import Empty

        raise Empty


def metrics(step, **values):
    """A step's metrics, each reward with interval and n."""
    line = {"step": step, "time/step": 30.0, "reward/mean": 0.5}
    for name, value in values.items():
        line |= {f"reward/{name}": value, **estimate([value] * 3 + [value + 0.1] * 3).as_metrics(f"reward/{name}")}
    return line


def evaluation(step, *scores):
    per_prompt = {str(i): {"ocr": score} for i, score in enumerate(scores)}
    found = estimate(scores)
    interval = None if found.low is None else (found.low, found.high)
    return Evaluation(step, len(scores), 4, {"ocr": found.mean}, {"ocr": interval}, per_prompt)


def on_terminal(show, columns=80, **variables):
    """What `show(console)` sends to a terminal of so many columns."""
    master, slave = pty.openpty()
    read = []

    def collect():
        try:
            while chunk := os.read(master, 65536):
                read.append(chunk)
        except OSError:
            pass

    reader = threading.Thread(target=collect)
    reader.start()
    with os.fdopen(slave, "w") as file:
        environment = {"TERM": "xterm-256color", "COLUMNS": str(columns), "LINES": "24", **variables}
        show(Console(file=file, force_terminal=True, width=columns, _environ=environment))
    reader.join(timeout=10)
    os.close(master)
    return b"".join(read).decode()


def visible(text):
    """Without what steers the terminal."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


def run(console, *messages, rewards=(), before=None, total=10, done=0):
    with ProgressDisplay(Messages(*messages), total, done, console, rewards=rewards, before=before) as display:
        display._stop.set()
        display._thread.join(timeout=20)


REWARDS = [RewardSection(name="ocr"), RewardSection(name="watched", weight=0.0)]


def test_without_a_terminal_every_step_is_one_plain_line_with_all_rewards():
    file = io.StringIO()
    messages = (metrics(1, ocr=0.4, watched=0.9), metrics(2, ocr=0.5, watched=0.8), {"notice": "[red]odd[/red]"})
    run(Console(file=file, width=40), *messages, rewards=REWARDS)
    first, second, notice = file.getvalue().splitlines()
    assert first.startswith("step 1/10  ") and second.startswith("step 2/10  ")
    assert re.search(r"ocr 0\.400 \(\S+ to \S+\)  watched 0\.900 \(\S+ to \S+\)  n=6 prompts", first)
    assert "left" in first and notice == "warning: [red]odd[/red]"
    assert not CONTROL.search(file.getvalue())


def test_colour_that_is_forced_into_a_pipe_brings_no_moving_cursor():
    file = io.StringIO()
    run(Console(file=file, force_terminal=True, width=80), metrics(1, ocr=0.4), rewards=REWARDS)
    assert not re.search(r"\x1b\[[0-9;?]*[A-LN-Za-ln-z]|\r", file.getvalue())  # all but `m`, which is colour
    assert "step 1/10" in file.getvalue()


@pytest.mark.parametrize("columns", [40, 80, 120])
def test_a_terminal_shows_a_bar_with_steps_rewards_and_time_left(columns):
    rewards = [*REWARDS, RewardSection(name=LONG)]
    text = visible(on_terminal(
        lambda console: run(console, metrics(3, ocr=0.4, watched=0.9, **{LONG: 0.1}), rewards=rewards), columns
    ))  # fmt: skip
    assert "training" in text and "3/10" in text and "left" in text
    assert "watched 0.900" in text and LONG in text.replace("\r\n", "")
    assert max(len(line) for line in re.split(r"[\r\n]+", text)) <= columns


def test_no_color_leaves_words():
    before, after = evaluation(0, *[0.1] * 6), evaluation(4, *[0.9] * 5, 0.8)
    text = on_terminal(lambda console: announce(console, after, before), NO_COLOR="1")
    assert "up" in text and not re.search(r"\x1b\[[0-9;]*3[0-7]", text)


@pytest.mark.parametrize(
    ("scores", "word", "colour"),
    [
        ([0.9, 0.8, 0.9, 0.8, 0.9, 0.8], "up", "32"),
        ([0.0, 0.1, 0.0, 0.1, 0.0, 0.1], "down", "31"),
        ([0.9, 0.1, 0.5, 0.4, 0.6, 0.5], "no change shown", None),
        ([0.9, 0.9, 0.9], "no change shown", None),
    ],
)
def test_a_heldout_line_has_n_interval_and_the_paired_change(scores, word, colour):
    """Green and red only beyond the interval, and never without a word; of three prompts there is no interval."""
    before, after = evaluation(0, *[0.5] * len(scores)), evaluation(20, *scores)
    lines = on_terminal(lambda console: announce(console, after, before), 200)
    plain = visible(lines)
    assert f"held-out after step 20: ocr {sum(scores) / len(scores):.3f}" in plain
    assert plain.count(f"n={len(scores)}") == 2 and word in plain
    assert plain.count("no interval") == (2 if len(scores) < 4 else 0)
    for code in ("31", "32"):
        assert (re.search(rf"\x1b\[[0-9;]*{code}m", lines) is not None) == (code == colour)


def test_time_left_comes_from_the_steps_of_this_process():
    now = [100.0]
    pace = Pace(total=100, done=60, clock=lambda: now[0])
    assert pace.left() is None and pace.words() == ""
    now[0] += 500  # the trainer starts; then the first step takes 10 s
    pace.see(61, seconds=10)
    assert pace.left() == pytest.approx(390)
    now[0] += 30
    pace.see(62)
    assert pace.left() == pytest.approx(40 / 2 * 38) and pace.words() == "13 min left"
    pace.see(100)
    assert pace.words() == ""
    assert [duration(s) for s in (4.4, 61, 3599, 7300)] == ["4 s", "1 min 1 s", "60 min", "2 h 1 min"]


def test_the_only_reward_is_not_named_twice_and_a_missing_value_is_a_dash():
    line = metrics(1, ocr=0.4)
    assert describe(line, [RewardSection(name="ocr")]).startswith("ocr 0.400 (")
    assert describe(line, [RewardSection(name="ocr", weight=2.0)]).startswith("reward 0.500  ocr 0.400 (")
    assert describe({"step": 1, "reward/mean": None}).startswith("reward –")
    again = {"step": 2, "loss": 0.1, "kl/reference": 0.0031, "time/train": 2.0, "time/rollout": 0.0}
    assert describe(again, [RewardSection(name="ocr")]) == "same images  kl 0.0031  train 2.0s"
    few = {"reward/mean": 0.5, "reward/ocr": 0.5, **estimate([0.4, 0.6]).as_metrics("reward/ocr")}
    assert "ocr 0.500 (no interval)  n=2 prompts" in describe(few, [RewardSection(name="ocr")])


def test_activities_and_bars_say_what_they_do_and_read_no_markup():
    file = io.StringIO()
    console = Console(file=file, width=40)
    with activity(console, "loading the policy runs/[red]x"), Bar(console, "drawing", 40, unit="prompt") as bar:
        for done in range(3, 41, 3):
            bar.see(done)
        bar.see(40)
    lines = file.getvalue().splitlines()
    assert lines[0] == "loading the policy runs/[red]x"
    assert len(lines) == 11 and lines[-1] == "prompt 40/40"
    text = visible(on_terminal(lambda console: activity(console, "loading [red]x").__enter__(), 40))
    assert "loading [red]x" in text
