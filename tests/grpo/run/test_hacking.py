"""Warnings of reward hacking: when they come, that they come once, and that they are printed."""

import io

import pytest
from rich.console import Console

from blip3o_grpo.configs import RewardSection, WarningsSection
from blip3o_grpo.evaluation.statistics import Estimate
from blip3o_grpo.progress import print_warning
from blip3o_grpo.run.hacking import HackingWatch, find_warnings, heldout_warnings, should_keep

REWARDS = [
    RewardSection(name="ocr"),
    RewardSection(name="aesthetic", type="a:B", weight=0),
    RewardSection(name="guard", type="reference_guard", weight=0.3),
]
CALM = {
    "kl/reference": 0.01,
    "image/brightness": 0.5,
    "image/edges": 0.1,
    "image/saturation": 0.4,
    "image/entropy": 0.3,
    "image/diversity": 0.2,
    "reward/ocr": 0.5,
    "reward/aesthetic": 0.6,
    "reward/guard": 0.95,
}


def lines(num_steps=30, **ends):
    """Metrics that go in a straight line from `CALM` to other values; names with `__` for the slash."""
    ends = {name.replace("__", "/"): value for name, value in ends.items()}
    share = [step / (num_steps - 1) for step in range(num_steps)]
    return [
        {"step": i + 1, **{name: value + part * (ends.get(name, value) - value) for name, value in CALM.items()}}
        for i, part in enumerate(share)
    ]


def test_a_run_that_only_learns_what_it_is_trained_on_is_quiet():
    metrics = lines(reward__ocr=1.0, kl__reference=0.1, image__edges=0.13, reward__guard=0.9)
    assert find_warnings(WarningsSection(), REWARDS, metrics) == []


@pytest.mark.parametrize(
    ("signal", "end", "words"),
    [
        ("kl/reference", 0.6, "above warnings.kl_budget=0.2"),
        ("image/saturation", 0.05, "warnings.image_change=0.5"),
        ("image/edges", 0.3, "warnings.image_change=0.5"),
        ("image/diversity", 0.02, "between the images of a group"),
        ("reward/aesthetic", 0.3, "warnings.reward_drop=0.1"),
        ("reward/guard", 0.5, "warnings.reward_drop=0.1"),
    ],
)
def test_each_signal_warns_once_after_it_crosses_its_limit(signal, end, words):
    metrics = lines(**{signal.replace("/", "__"): end})
    (warning,) = find_warnings(WarningsSection(), REWARDS, metrics)
    assert warning.signal == signal and words in warning.text and signal in warning.text
    assert 5 < warning.step < 30
    off = WarningsSection(kl_budget=None, image_change=None, reward_drop=None)
    assert find_warnings(off, REWARDS, metrics) == []


def test_a_trained_reward_may_fall_and_one_odd_step_is_no_trend():
    metrics = lines(reward__ocr=0.1)
    metrics[12]["image/edges"] = 0.2
    metrics[13]["reward/guard"] = 0.6
    metrics[14]["kl/reference"] = None
    assert find_warnings(WarningsSection(), REWARDS, metrics) == []


def test_a_guard_is_what_a_recipe_a_run_or_the_reward_itself_says_and_no_users_file_is_imported():
    assert should_keep(RewardSection(name="guard", type="reference_guard"))
    assert not should_keep(RewardSection(name="guard", type="reference_guard", guard=False))
    assert should_keep(RewardSection(name="own", type="nowhere:Guard", guard=True))
    assert not should_keep(RewardSection(name="own", type="nowhere:Guard"))
    assert should_keep(RewardSection(name="own", type="nowhere:Guard", weight=0))
    assert not should_keep(RewardSection(name="ocr")) and should_keep(RewardSection(name="ocr", weight=0))
    assert should_keep(RewardSection(name="ocr", guard=True)) and should_keep(
        RewardSection(name="ocr", guard=False, weight=0)
    )


def test_a_users_file_is_not_run_for_a_report(tmp_path, monkeypatch):
    (tmp_path / "planted_guard.py").write_text("from pathlib import Path\n\nPath(__file__).with_name('ran').touch()\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert not should_keep(RewardSection(name="own", type="planted_guard:Guard"))
    assert not (tmp_path / "ran").exists()


def test_noise_from_step_to_step_is_no_fall():
    metrics = lines()
    for line, value in zip(metrics, [0.9, 0.5] * 2 + [0.6, 0.3, 0.8] * 9, strict=False):
        line["reward/aesthetic"] = value  # other prompts in every step: window means move by more than the limit
    assert find_warnings(WarningsSection(), REWARDS, metrics) == []


def test_a_watch_says_step_by_step_what_the_whole_file_says():
    metrics = lines(kl__reference=0.6, reward__aesthetic=0.2)
    watch = HackingWatch(WarningsSection(), REWARDS)
    assert [warning for line in metrics for warning in watch.see(line)] == find_warnings(
        WarningsSection(), REWARDS, metrics
    )


def warned(values, name, **limits):
    """Steps at which a signal warns, with windows of two steps and limits that binary numbers say exactly."""
    section = WarningsSection(
        **{"window_steps": 2, "kl_budget": 0.25, "image_change": 0.5, "reward_drop": 0.125, **limits}
    )
    metrics = [{"step": step, name: value} for step, value in enumerate(values, start=1)]
    return [warning.step for warning in find_warnings(section, REWARDS, metrics)]


@pytest.mark.parametrize(
    ("name", "values", "steps"),
    [
        ("kl/reference", [0.25, 0.25], []),  # up to its budget
        ("kl/reference", [0.25, 0.26], [2]),  # as soon as a window is full
        ("kl/reference", [0.1, 0.3, 0.3, 0.3, 0.9], [3]),  # once
        ("image/edges", [0.5, 0.5, 0.75, 0.75], []),
        ("image/edges", [0.5, 0.5, 0.76, 0.76], [4]),
        ("image/edges", [0.5, 0.5, 0.25, 0.25], []),
        ("image/edges", [0.5, 0.5, 0.24, 0.24], [4]),
        ("image/edges", [0.0, 0.0, 0.9, 0.9], []),  # of nothing there is no share
        ("reward/aesthetic", [0.75, 0.75, 0.625, 0.625], []),
        ("reward/aesthetic", [0.75, 0.75, 0.62, 0.62], [4]),
        ("reward/aesthetic", [0.5, 0.5, 0.9, 0.9], []),  # it may rise
        ("reward/ocr", [0.75, 0.75, 0.1, 0.1], []),
    ],
)
def test_a_signal_warns_beyond_its_limit_and_not_at_it(name, values, steps):
    assert warned(values, name) == steps


@pytest.mark.parametrize(
    ("later", "steps"),
    [
        ((0.39, 0.39), []),  # a fall of 0.21 is less than three standard errors, 3 x sqrt(0.01 / 2)
        ((0.38, 0.38), [4]),
        ((0.18, 0.58), []),  # the window's own variance, 0.04, counts too
        ((0.05, 0.05), [4]),
    ],
)
def test_a_change_is_three_standard_errors(later, steps):
    assert warned([0.5, 0.7, *later], "reward/aesthetic") == steps


def test_a_window_is_as_long_as_the_limits_say():
    values = [0.75] * 4 + [0.5] * 4
    assert warned(values, "reward/aesthetic", window_steps=4) == [7]  # at 6 the mean has fallen by just the limit
    assert warned(values, "reward/aesthetic", window_steps=1) == [5]


def test_heldout_rewards_that_should_not_fall():
    before = {"ocr": 0.5, "aesthetic": 0.6, "guard": 0.95}
    falls = {"ocr": -0.3, "aesthetic": -0.05, "guard": -0.35}
    changes = {name: Estimate(fall, fall - 0.04, fall + 0.04, 12) for name, fall in falls.items()}
    (warning,) = heldout_warnings(WarningsSection(), REWARDS, before, changes, 40)
    assert (warning.step, warning.signal) == (40, "heldout/guard")
    assert "fell from 0.950 to 0.600" in warning.text
    assert warning.text.endswith("(change -0.390 to -0.310, n=12)")
    assert heldout_warnings(WarningsSection(), REWARDS, before, {"ocr": changes["ocr"]}, 40) == []
    assert heldout_warnings(WarningsSection(), REWARDS, {"ocr": 0.5}, changes, 40) == []  # not measured before
    exact = WarningsSection(reward_drop=0.125)
    for fall, warns in ((-0.125, False), (-0.13, True), (0.5, False)):
        change = {"guard": Estimate(fall, fall - 0.04, fall + 0.04, 12)}
        assert bool(heldout_warnings(exact, REWARDS, {"guard": 0.75}, change, 40)) is warns


def test_a_warning_is_one_line_in_the_terminal():
    (warning,) = find_warnings(WarningsSection(), REWARDS, lines(reward__guard=0.5))
    buffer = io.StringIO()
    print_warning(Console(file=buffer, width=40), warning)
    assert buffer.getvalue().count("\n") == 1 and buffer.getvalue().startswith(f"warning: step {warning.step}: ")
