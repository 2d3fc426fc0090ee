"""A SIGKILL at any moment, above all while a checkpoint is written, leaves a run that resumes to the same end."""

import random
import signal
import time

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from blip3o_grpo.rollout import read_rollouts
from blip3o_grpo.run.folder import RunFolder, checkpoints_in
from blip3o_grpo.run.manifest import fault
from blip3o_grpo.run.metrics import read_metrics
from tests.grpo.lives import LifeServer

STEPS = 8
KILLS = 4
SEEDS = 5
FILES = 9
"""About as many as a checkpoint gets, its manifest included."""


def wait_for_save(folder, life, number, files):
    """Wait until this life's save number `number` has written so many files (or until it, or the life, is over)."""
    seen = set()
    while len(seen) < number and life.is_alive():
        seen |= set(folder.staging.glob("checkpoint-*"))
        time.sleep(0.001)
    staged = max(seen, default=folder.staging)
    while staged.is_dir() and len(list(staged.glob("*"))) < files and life.is_alive():
        time.sleep(0.001)


def check_what_is_left(folder):
    """Everything that has its final name is complete."""
    found = checkpoints_in(folder.checkpoints)
    for step, path in found.items():
        assert fault(path, step, full=True) is None
    steps = [line["step"] for line in read_metrics(folder.metrics)]
    assert steps == list(range(1, len(steps) + 1))
    assert len(steps) >= folder.newest_step()
    for record in read_rollouts(folder.path):
        assert record["rollouts"]


def whole_story(folder):
    """What a run leaves, without times."""
    metrics = read_metrics(folder.metrics)
    rollouts = read_rollouts(folder.path)
    events = EventAccumulator(str(folder.tensorboard)).Reload()
    shown = [event.step for event in events.Scalars("train/reward/mean")]
    assert [line["step"] for line in metrics] == shown == list(range(1, STEPS + 1))
    assert [record["step"] for record in rollouts] == [step for step in range(1, STEPS + 1) for _ in range(2)]
    numbers = [{name: value for name, value in line.items() if not name.startswith("time/")} for line in metrics]
    return numbers, [[(r["seed"], r["rewards"]) for r in record["rollouts"]] for record in rollouts]


@pytest.fixture(scope="module")
def lives():
    with LifeServer() as server:
        yield server


@pytest.fixture(scope="module")
def new_run(make_config):
    def make():
        config = make_config(
            rollout={"record_every_steps": 1},
            trainer={"max_steps": STEPS, "ema": {"decay": 0.5}},
            checkpoint={"every_steps": 1, "keep": 2},
            report_to=["tensorboard"],
        )
        folder = RunFolder(config.run_dir)
        folder.prepare(config)
        return folder

    return make


@pytest.fixture(scope="module")
def in_saves():
    """Of each kill, whether it left a half-written checkpoint."""
    return []


@pytest.fixture(scope="module")
def undisturbed(lives, new_run):
    """What an undisturbed run leaves, and how long it takes."""
    folder, started = new_run(), time.monotonic()
    assert lives.start(folder.config).end() == 0
    return whole_story(folder), time.monotonic() - started


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_sigkill_at_random_moments_never_leaves_a_run_that_cannot_resume(lives, new_run, undisturbed, in_saves, seed):
    """Four kills each of five runs: two inside the writing of a checkpoint, two anywhere."""
    expected, life_s = undisturbed
    draw, folder = random.Random(seed), new_run()
    for kill in range(KILLS):
        life = lives.start(folder.config)
        if kill % 2:
            time.sleep(draw.uniform(0, life_s / 3))
        else:
            wait_for_save(folder, life, draw.choice((1, 1, 2)), draw.randrange(FILES))
        assert life.is_alive(), "the run was over before it could be killed"
        assert life.end(kill=True) == -signal.SIGKILL
        in_saves.append(any(folder.staging.glob("checkpoint-*")))
        check_what_is_left(folder)
    assert lives.start(folder.config).end() == 0
    assert_same(whole_story(folder), expected)


@pytest.mark.slow
def test_the_kills_did_fall_into_the_writing_of_checkpoints(in_saves):
    if len(in_saves) == SEEDS * KILLS:
        assert sum(in_saves) >= SEEDS


def assert_same(story, expected):
    """Metrics within 1e-4, recorded seeds and rewards exactly."""
    for line, other in zip(story[0], expected[0], strict=True):
        assert line.keys() == other.keys()
        for name, value in other.items():
            assert line[name] == pytest.approx(value, abs=1e-4), (line["step"], name)
    assert story[1] == expected[1]
