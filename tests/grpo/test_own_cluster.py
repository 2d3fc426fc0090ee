"""A cluster of a run's own: what its loss looks like, what is kept of it, and that nothing else is left."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest

from blip3o_grpo import own_cluster
from blip3o_grpo.own_cluster import (
    EVIDENCE_BYTES,
    HANG,
    MARK,
    TAIL_BYTES,
    end_processes,
    processes_of,
    remove_stale_sessions,
    save_evidence,
)

ROOT = Path(__file__).parents[2]
SMALL = (
    "rollout.prompts_per_step=2",
    "rollout.group_size=2",
    "rollout.num_diffusion_steps=1",
    "evaluation.num_prompts=4",
    "evaluation.images_per_prompt=2",
    "checkpoint.every_steps=1",
    "cluster.address=local",
    "report_to=[]",
)
PATIENCE_S = 900
"""Of these tests, for a command to get somewhere; nothing is measured."""
STARTED = []
"""Commands of a test, ended after it whatever it found."""


@pytest.fixture
def logs(tmp_path):
    folder = tmp_path / "session" / "logs"
    folder.mkdir(parents=True)
    return folder


def test_logs_of_workers_that_hung_are_kept_after_a_run_that_ended_well(logs, tmp_path):
    """Only those: the others of such a run tell nothing."""
    (logs / "worker-a-01-1.err").write_bytes(b":job_id:01\n" + HANG + b"0:01:00)!\nThread 0x1\n  File reward.py\n")
    (logs / "worker-b-01-2.out").write_text("loading weights\n")
    save_evidence(logs.parent, tmp_path / "kept", everything=False)
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["worker-a-01-1.err"]


def test_nothing_is_written_where_nothing_is_worth_keeping(logs, tmp_path):
    (logs / "worker-a-01-1.err").write_text(":job_id:01\n:actor_name:Sampler\n")
    save_evidence(logs.parent, tmp_path / "kept", everything=True)
    assert not (tmp_path / "kept").exists()


def test_what_is_kept_of_a_failure_is_bounded_and_holds_no_secret(logs, tmp_path, monkeypatch):
    """The ends of logs of workers and of Ray itself; what an earlier failure left is replaced."""
    monkeypatch.setenv("SERVICE_TOKEN", "abc-very-secret")
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "worker-old-01-1.err").write_text("of the failure before")
    for number in range(2 * EVIDENCE_BYTES // TAIL_BYTES):
        (logs / f"worker-{number}-01-{number}.err").write_bytes(b"x" * 2 * TAIL_BYTES + b"\nthe last words\n")
    (logs / "raylet.out").write_text("token abc-very-secret\n")
    (logs / "python-core-worker-1.log").write_text("not kept")
    save_evidence(logs.parent, tmp_path / "kept", everything=True)
    kept = {path.name: path.read_bytes() for path in (tmp_path / "kept").iterdir()}
    assert "worker-old-01-1.err" not in kept and "python-core-worker-1.log" not in kept
    assert kept["raylet.out"] == b"token [SERVICE_TOKEN]\n"
    assert sum(map(len, kept.values())) <= EVIDENCE_BYTES
    assert all(len(text) <= TAIL_BYTES for text in kept.values())
    workers = [text for name, text in kept.items() if name.startswith("worker-")]
    assert len(workers) > 10 and all(text.endswith(b"the last words\n") for text in workers)


def test_sessions_of_killed_owners_are_removed_and_no_others(tmp_path):
    """Not those of a living owner, of other programs, and not one whose processes have files open there."""
    me = psutil.Process()
    owners = {"dead": {"pid": 2**22 - 1, "started": 1.0}, "alive": {"pid": me.pid, "started": me.create_time()}}
    owners |= {"reused": {"pid": me.pid, "started": 1.0}, "held": owners["dead"], "odd": [], "another's": None}
    for name, owner in owners.items():
        session = tmp_path / f"session_{name}"
        session.mkdir()
        if owner is not None:
            (session / MARK).write_text(json.dumps(owner))
    (tmp_path / "session_link").symlink_to(tmp_path / "session_dead")
    held = subprocess.Popen(["sleep", "60"], stdout=(tmp_path / "session_held" / "worker.out").open("w"))
    assert [process.pid for process in processes_of(tmp_path / "session_held")] == [held.pid]
    remove_stale_sessions(tmp_path)
    held.kill()
    held.wait()
    left = {path.name.removeprefix("session_") for path in tmp_path.iterdir() if not path.is_symlink()}
    assert left == {"alive", "held", "odd", "another's"}


def test_a_head_that_is_stopped_for_too_long_counts_as_lost_and_one_that_goes_on_does_not(tmp_path, monkeypatch):
    head = subprocess.Popen(["sleep", "60"])
    monkeypatch.setattr(own_cluster, "head_processes", lambda: {"gcs_server": head})
    monkeypatch.setattr(own_cluster, "session_folder", lambda: tmp_path)
    monkeypatch.setattr(own_cluster, "STOPPED_S", 0.5)
    cluster = own_cluster.OwnCluster(tmp_path / "evidence")

    def lost_within(seconds):
        until = time.monotonic() + seconds
        while (lost := cluster._loss()) is None and time.monotonic() < until:
            time.sleep(0.01)
        return lost

    try:
        for _ in range(2):  # two short stops do not add up
            head.send_signal(signal.SIGSTOP)
            assert lost_within(0.3) is None
            head.send_signal(signal.SIGCONT)
            assert lost_within(0.3) is None
        head.send_signal(signal.SIGSTOP)
        assert lost_within(60) == "gcs_server was stopped for more than 0.5 s"
    finally:
        head.kill()
        head.wait()
    assert cluster._loss() == "gcs_server was killed by SIGKILL"


@pytest.fixture
def place():
    """A folder for Ray's sessions with a path short enough for its sockets, and for a run."""
    folder = Path(tempfile.mkdtemp(prefix="own", dir="/tmp"))
    yield folder
    for process in STARTED:
        process.kill()
    STARTED.clear()
    end_processes(folder)
    shutil.rmtree(folder, ignore_errors=True)


def start(place, *command):
    """The command line, in a process of its own."""
    environment = {**os.environ, "RAY_TMPDIR": str(place), "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    process = subprocess.Popen(
        [sys.executable, "-c", "from blip3o_grpo.cli import app; app()", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=place,
        start_new_session=True,
    )
    STARTED.append(process)
    return process


def wait_for(process, condition):
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.05)


def head(process, name):
    return next(child for child in psutil.Process(process.pid).children() if child.name() == name)


def nothing_left(place):
    """No session folder, and no process that has a file of it open or names it."""
    named = [
        process.info
        for process in psutil.process_iter(["pid", "cmdline"])
        if any(str(place) in part for part in process.info["cmdline"] or ())
    ]
    return not list((place / "ray").glob("session_*")) and not processes_of(place) and not named


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gcs_server", "raylet"])
def test_a_run_whose_cluster_is_killed_says_so_in_one_line_and_resumes(place, name):
    run = place / "run"
    command = ("train", "tiny_ocr", *SMALL, "trainer.max_steps=3", f"run_dir={run}")
    process = start(place, *command)
    wait_for(process, lambda: (run / "metrics.jsonl").is_file())
    head(process, name).kill()
    out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 2, err
    lines = [line for line in err.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error: ")]
    assert len(errors) == 1 and f"{name} was killed by SIGKILL" in errors[0], err
    assert "the same command resumes from the last checkpoint" in errors[0]
    assert len(lines) < 10 and "state-dump" not in out + err, err
    assert nothing_left(place)
    assert (run / "failures" / "ray-logs" / f"{name}.out").stat().st_size
    process = start(place, *command)
    out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, err
    assert [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()] == [1, 2, 3]
    assert nothing_left(place)


@pytest.mark.slow
def test_an_evaluation_whose_cluster_is_killed_says_so_in_one_line(place):
    """It has nothing to resume from, and does not say so."""
    process = start(place, "eval", "tiny", "--suite", "ocr", "--num-prompts", "4", "--set", f"run_dir={place / 'run'}")
    wait_for(process, lambda: (place / "ray").is_dir() and list((place / "ray").glob(f"session_*/{MARK}")))
    head(process, "gcs_server").kill()
    _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 2, err
    assert (
        err.count("error: ") == 1
        and "gcs_server was killed by SIGKILL" in err
        and "give the same command again" in err
        and "resumes" not in err
    )
    assert nothing_left(place)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_run_that_was_stopped_leaves_no_session(place, number):
    run = place / "run"
    process = start(place, "train", "tiny_ocr", *SMALL, "trainer.max_steps=50", f"run_dir={run}")
    wait_for(process, lambda: (run / "metrics.jsonl").is_file())
    if number == signal.SIGHUP:  # a terminal that closes tells every process, Ray's among them
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 128 + number, err
    assert nothing_left(place)
    assert not (run / "failures").exists()


@pytest.mark.slow
def test_the_session_of_a_killed_driver_is_removed_by_the_next_command(place):
    run = place / "run"
    process = start(place, "train", "tiny_ocr", *SMALL, "trainer.max_steps=2", f"run_dir={run}")
    wait_for(process, lambda: (run / "metrics.jsonl").is_file())
    process.kill()
    process.communicate()
    assert list((place / "ray").glob(f"session_*/{MARK}"))
    end = time.monotonic() + PATIENCE_S
    while processes_of(place) and time.monotonic() < end:  # Ray's agents take about a minute
        time.sleep(0.5)
    process = start(place, "train", "tiny_ocr", *SMALL, "trainer.max_steps=2", f"run_dir={run}")
    _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, err
    assert nothing_left(place)


@pytest.mark.slow
def test_a_study_whose_cluster_is_killed_leaves_trials_that_can_be_repeated(place):
    study = place / "study.yaml"
    study.write_text(
        f"study_dir: {place / 'study'}\nbase: {ROOT / 'configs' / 'tiny_ocr.yaml'}\n"
        "arms: [{name: a, weights: {ocr: 1}}]\nseeds: [0]\noverrides:\n"
        + "".join(f"  {part.replace('=', ': ', 1)}\n" for part in (*SMALL, "trainer.max_steps=2"))
    )
    process = start(place, "ablate", str(study))
    trial = place / "study" / "arms" / "a" / "seed-0"
    wait_for(process, lambda: list((place / "study").rglob("metrics.jsonl")))
    head(process, "raylet").kill()
    _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 2 and err.count("error: ") == 1 and "raylet was killed by SIGKILL" in err, err
    assert nothing_left(place) and not list((place / "study").rglob("summary.json")), trial
    process = start(place, "ablate", str(study))
    _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, err
    assert list((place / "study").rglob("summary.json"))
    assert nothing_left(place)
