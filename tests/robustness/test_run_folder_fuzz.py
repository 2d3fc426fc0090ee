"""Made-up edits of a run folder's files: `report` and `rescore` end well, or with one line that names the file.

Each test stops making up examples after `SECONDS`; what it tried until then counts.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from contextlib import contextmanager

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blip3o_grpo.errors import file_error, user_error
from blip3o_grpo.report import write_report
from blip3o_grpo.study.rescore import rescore
from tests.robustness.accepted import copy

SECONDS = 6.0
EACH_S = 30
"""More than any one report or rescore takes; what takes longer hangs."""
often = settings(
    max_examples=150, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
numbers = st.sampled_from([0, -1, 7, 2**53, 10**30, 0.5, -1e-9, 1e300, float("inf"), float("nan")])
values = st.recursive(
    st.none() | st.booleans() | numbers | st.sampled_from(["", "7", "a", "../../x.png", "before.png", "\u202e"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["ocr", "a"]), inner, max_size=2),
    max_leaves=4,
)
FILES = (
    "config.yaml", "metrics.jsonl", "evaluations/before.json", "evaluations/before-images/index.jsonl",
    "rollouts/step-000000/rollouts.jsonl", "rollouts/step-000000/000-best.png", "summary.json",
)  # fmt: skip


@contextmanager
def no_hang():
    """Fails what takes longer than `EACH_S`."""

    def late(*_):
        raise AssertionError("it hangs")

    previous = signal.signal(signal.SIGALRM, late)
    signal.alarm(EACH_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)


@pytest.fixture
def fresh(shared, tmp_path):
    """Gives a new copy of a small finished run's folder, or None once the test has had its time."""
    ends, count = time.monotonic() + SECONDS, iter(range(10**6))

    def make():
        if time.monotonic() > ends:
            return None
        folder = copy(shared[2], tmp_path / str(next(count)))
        (folder / "summary.json").write_text(SUMMARY)
        return folder

    return make


def ends_well_or_names(folder, name, act):
    try:
        with no_hang():
            act(folder)
    except Exception as error:
        told = user_error(error) or file_error(error)
        assert told is not None, f"a traceback for {name}: {error!r}"
        assert folder.name in str(told) or name.rsplit("/", 1)[-1] in str(told), told
        assert "Input should" not in str(told), told
    shutil.rmtree(folder)


class Zero:
    """A reward that needs nothing."""

    def __call__(self, batch):
        return [0.0] * len(batch)


def both(folder):
    write_report(folder)
    rescore(folder, [f"{__name__}:Zero"])


def places(value, found=()):
    """Every place in a JSON value."""
    yield found
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in inner:
        yield from places(part, (*found, key))


SUMMARY = json.dumps({"steps": 1, "seconds": 2.5, "peak_memory_gb": 1.0})


def original(run, name):
    return SUMMARY.encode() if name == "summary.json" else (run / name).read_bytes()


def spoil(fresh, name, content):
    folder = fresh()
    if folder is not None:
        (folder / name).unlink()
        (folder / name).write_bytes(content)
        ends_well_or_names(folder, name, both)


@often
@given(st.sampled_from([name for name in FILES if ".json" in name]), st.data())
def test_any_value_at_any_place(shared, fresh, name, data):
    content = [json.loads(original(shared[2], name))]
    place = (0, *data.draw(st.sampled_from(list(places(content[0])))))
    value = data.draw(values)
    holder = content
    for key in place[:-1]:
        holder = holder[key]
    if data.draw(st.booleans()) and isinstance(holder, dict):
        del holder[place[-1]]
    else:
        holder[place[-1]] = value
    spoil(fresh, name, (json.dumps(content[0]) + "\n").encode())


@often
@given(st.sampled_from(FILES), st.data())
def test_any_damage_to_any_file(shared, fresh, name, data):
    content = bytearray((shared[2] / name).read_bytes() if name.endswith(".png") else original(shared[2], name))
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    spoil(fresh, name, bytes(content[: data.draw(st.integers(0, len(content)))]))


@pytest.mark.parametrize("kind", ["pipe", "folder", "dangling"])
@pytest.mark.parametrize("name", [name for name in FILES if not name.endswith(".png")])
def test_what_is_no_file(fresh, name, kind):
    folder = fresh()
    (folder / name).unlink()
    make = {"pipe": os.mkfifo, "folder": os.mkdir, "dangling": lambda path: path.symlink_to("nowhere")}
    make[kind](folder / name)
    ends_well_or_names(folder, name, write_report)
