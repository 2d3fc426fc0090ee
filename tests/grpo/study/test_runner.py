"""Trials under Ray Tune: a failed one stops nothing, a killed study goes on where it was, finished ones are kept."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from blip3o_grpo.cli import app
from blip3o_grpo.run.folder import RunFolder
from blip3o_grpo.run.metrics import read_metrics
from blip3o_grpo.study import runner
from blip3o_grpo.study.launch import last_line, share_start
from blip3o_grpo.study.runner import StudyStopped

STUB = Path(__file__).parent
REAL = [sys.executable, "-m", "blip3o_grpo.cli", "ablate"]
STUBBED = [
    sys.executable,
    "-c",
    "import sys, blip3o_grpo.study.runner as runner; runner.TRIAL_MODULE = 'stub_trial'; "
    "from blip3o_grpo.cli import app; app(['ablate', *sys.argv[1:]])",
]


def start(command, *args):
    """A study in a process group of its own."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(STUB), str(STUB.parents[2])])}
    return subprocess.Popen(
        [*command, *map(str, args)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def wait_for(condition, process, timeout_s=300):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline, "took too long"
        time.sleep(0.1)


def starts(folder, arm):
    return (folder / "arms" / arm / "seed-0/starts").read_text().splitlines()


def test_a_failed_trial_stops_nothing_and_a_killed_study_goes_on(study_files, tmp_path):
    folder = tmp_path / "study"
    arms = [{"name": name, "weights": {"ocr": weight}} for weight, name in enumerate(("good", "bad", "slow"), 1)]
    path = study_files.study(study_dir=str(folder), arms=arms, seeds=[0])
    folder.mkdir()
    (folder / "hold").touch()
    heartbeat = folder / "arms/slow/seed-0/heartbeat"
    process = start(STUBBED, path)
    try:
        wait_for(heartbeat.exists, process)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    time.sleep(5)
    beat = heartbeat.read_text()
    time.sleep(1)
    assert heartbeat.read_text() == beat  # the killed study's run writes no more
    assert not (folder / "arms/slow/seed-0/summary.json").exists()

    (folder / "hold").unlink()
    process = start(STUBBED, path)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 1, output
    assert "1 of 3 trials are finished already" in output and "Last result" not in output
    assert "failed: bad/seed-0" in output and "error: [no] luck" in output
    assert "finished: slow/seed-0" in output
    assert starts(folder, "good") == ["without start"]  # not repeated
    assert starts(folder, "slow") == ["with start"] * 2  # the starting policy was evaluated by the first arm
    assert len(starts(folder, "bad")) == 2
    summary = json.loads((folder / "study.json").read_text())
    assert summary["trials"] == {
        "good/seed-0": "finished",
        "bad/seed-0": "error: [no] luck",
        "slow/seed-0": "finished",
    }
    assert {row["arm"] for row in summary["matrix"]} == {"start", "good", "slow"}
    assert "error: [no] luck" in (folder / "report.html").read_text()
    assert not (folder / ".tune").exists()


def test_an_interrupted_study_reports_what_is_there_and_says_how_it_goes_on(study_files, tmp_path, monkeypatch):
    def stop(plan, console):
        raise StudyStopped({"text/seed-0": "error: no luck"})

    monkeypatch.setattr(runner, "run_trials", stop)
    path, folder = study_files.study(study_dir=str(tmp_path / "my study")), tmp_path / "my study"
    result = CliRunner().invoke(app, ["ablate", str(path), "trainer.max_steps=3", "--smoke"])
    folder = Path(f"{folder}-smoke")
    assert result.exit_code == 130, result.output
    said = result.stdout.splitlines()
    assert said[-3:] == [
        "stopped with 0 of 2 trials finished",
        f"report of what is there: {folder / 'report.html'}",
        f"to go on: blip3o-grpo ablate {path} trainer.max_steps=3 --smoke",
    ]
    assert result.stderr.startswith("stopped; the same command resumes")
    assert "error: no luck" in (folder / "report.html").read_text()
    assert json.loads((folder / "study.json").read_text())["trials"]["both/seed-0"] == "not finished"


@pytest.mark.slow
def test_a_study_that_gets_sigterm_has_a_report(study_files, tmp_path):
    """Of the trial that was finished; the one that was running ends, too."""
    folder = tmp_path / "study"
    arms = [{"name": name, "weights": {"ocr": weight}} for weight, name in enumerate(("good", "slow"), 1)]
    path = study_files.study(study_dir=str(folder), arms=arms, seeds=[0])
    folder.mkdir()
    (folder / "hold").touch()
    heartbeat = folder / "arms/slow/seed-0/heartbeat"
    process = start(STUBBED, path)
    wait_for(heartbeat.exists, process)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 130, output
    assert "stopped with 1 of 2 trials finished" in output
    assert f"to go on: blip3o-grpo ablate {path}" in output
    assert "good" in (folder / "report.html").read_text()
    beat = heartbeat.read_text()
    time.sleep(2)
    assert heartbeat.read_text() == beat


def test_the_start_is_shared_whole_or_not_at_all(tmp_path):
    runs = [RunFolder(tmp_path / name) for name in "abc"]
    for run in runs[1:]:
        for folder in (run.evaluations / "before-images", run.grids):
            folder.mkdir(parents=True)
        (run.evaluations / "before-images/index.jsonl").write_text(run.path.name)
        (run.grids / "before.png").write_text(run.path.name)
        (run.evaluations / "before.json").write_text(run.path.name)
    share_start(runs[0], runs[1:])
    assert not (runs[0].evaluations / "before.json").exists()  # no sibling has saved what its rewards remember
    runs[2].reward_state.write_text("c")
    share_start(runs[0], runs[1:])
    files = (
        runs[0].reward_state,
        runs[0].grids / "before.png",
        runs[0].evaluations / "before.json",
        runs[0].evaluations / "before-images/index.jsonl",
    )
    assert {file.read_text() for file in files} == {"c"}
    runs[1].reward_state.write_text("b")
    share_start(runs[0], runs[1:])
    assert files[2].read_text() == "c"  # what a run has, it keeps


def test_last_line_of_a_log(tmp_path):
    log = tmp_path / "log"
    assert last_line(log) == "no output"
    log.write_text("one\n  two \n\n")
    assert last_line(log) == "two"


@pytest.mark.slow
def test_a_real_study_killed_in_mid_trial_ends_like_an_uninterrupted_one(study_files, tmp_path):
    """Arms on the random policy with everything real: the matrices agree, the finished arm is not repeated.

    The uninterrupted study also has an arm whose run really fails, before the others.
    """
    overrides = {
        "trainer.max_steps": 3,
        "trainer.learning_rate": 1e-3,
        "checkpoint.every_steps": 1,
        "rollout.num_diffusion_steps": 2,
    }
    suites = [{"name": name, "prompts": f"{name}.jsonl", "num_prompts": 5} for name in ("signs", "shapes")]
    arms = [
        {"name": "text", "weights": {"ocr": 1}},
        {"name": "both", "weights": {"ocr": 1, "geneval": 0.5}, "overrides": {"trainer.beta": 0.1}},
    ]
    broken = {"name": "broken", "weights": {"ocr": 1}, "overrides": {"trainer.mismatch_bound": 1e-15}}
    common = {"seeds": [0], "overrides": overrides, "suites": suites}

    folder = tmp_path / "whole"
    process = start(REAL, study_files.study(study_dir=str(folder), arms=[broken, *arms], **common))
    output, _ = process.communicate(timeout=1200)
    assert process.returncode == 1, output
    whole = json.loads((folder / "study.json").read_text())
    assert {name: state == "finished" for name, state in whole["trials"].items()} == {
        "broken/seed-0": False,
        "text/seed-0": True,
        "both/seed-0": True,
    }
    assert "mismatch" in whole["trials"]["broken/seed-0"] and "failed: broken/seed-0" in output
    assert "mismatch" in (folder / "report.html").read_text()

    folder = tmp_path / "killed"
    path = study_files.study(study_dir=str(folder), arms=arms, **common)
    process = start(REAL, path)
    second = RunFolder(folder / "arms/both/seed-0")
    try:
        wait_for(lambda: len(read_metrics(second.metrics)) >= 2, process, 900)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert second.newest_step() >= 1 and not second.summary.exists()
    first = folder / "arms/text/seed-0/summary.json"
    stamp = first.stat().st_mtime_ns
    time.sleep(10)
    process = start(REAL, path)
    output, _ = process.communicate(timeout=900)
    assert process.returncode == 0, output
    assert first.stat().st_mtime_ns == stamp and "1 of 2 trials are finished already" in output
    assert [line["step"] for line in read_metrics(second.metrics)] == [1, 2, 3]
    assert (second.path / "train.log").read_text().count("step 1/3") == 1  # it went on and did not begin again
    killed = json.loads((folder / "study.json").read_text())
    for ours, theirs in zip(killed["matrix"], whole["matrix"], strict=True):
        assert (ours["arm"], ours["suite"], ours["reward"]) == (theirs["arm"], theirs["suite"], theirs["reward"])
        assert ours["mean"] == pytest.approx(theirs["mean"], abs=1e-3)
