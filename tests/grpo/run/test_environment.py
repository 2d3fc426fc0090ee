"""What a run ran with: recorded as it starts, added to when it resumes, without secrets."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from blip3o_grpo.run import environment
from blip3o_grpo.run.environment import ENVIRONMENT, command, record_start
from blip3o_grpo.run.files import read_object


def starts(file):
    return read_object(file, ENVIRONMENT)["starts"]


def test_a_start_names_versions_code_machine_and_command(tmp_path):
    record_start(tmp_path / "environment.json", step=3)
    (start,) = starts(tmp_path / "environment.json")
    assert start["step"] == 3 and start["folder"] == str(Path.cwd())
    assert {"python", "torch", "trl", "transformers", "ray", "blip3o-grpo"} <= start["versions"].keys()
    assert start["machine"]["cores"] > 0 and start["machine"]["memory_gb"] > 0
    assert start["command"].startswith("python ") and start["started"].endswith("+00:00")


def test_resumed_runs_add_to_the_list_and_a_retry_without_progress_does_not(tmp_path):
    file = tmp_path / "environment.json"
    for step in (0, 0, 4, 4, 7):
        record_start(file, step)
    assert [start["step"] for start in starts(file)] == [0, 4, 7]
    assert [path.name for path in tmp_path.iterdir()] == ["environment.json"]


def test_a_file_that_is_no_such_list_is_put_aside(tmp_path):
    (tmp_path / "environment.json").write_text("name: mine")
    record_start(tmp_path / "environment.json")
    assert len(starts(tmp_path / "environment.json")) == 1
    assert (tmp_path / "refused-environment.json").read_text() == "name: mine"


@pytest.mark.parametrize(
    ("arguments", "of_interpreter", "shown"),
    [
        (["/x/bin/blip3o-grpo", "train", "a b"], ["/x/python", "/x/bin/blip3o-grpo", "train", "a b"], "train 'a b'"),
        (["/x/cli.py", "train"], ["/x/python", "-X", "dev", "-m", "blip3o_grpo.cli", "train"], "-m blip3o_grpo.cli"),
        (["-c", "1"], ["/x/python", "-c", "import os; key = 'abc'", "1"], "python -c ..."),
        (["x.py"], ["python", "x.py", "--hub-token", "s3cret", "o.api_key=s3cret"], "--hub-token '[hidden]'"),
        (["x.py"], ["python", "x.py", 'h={"Authorization": "Bearer s3cret", "n": 1}'], '"Authorization": [hidden]'),
        (["x.py"], ["python", "x.py", "token='s3cret,s3cret'", "https://me:s3cret@host/x"], "https://[hidden]@host"),
        (["x.py"], ["python", "x.py", "s3cret-of-the-environment", "num_tokens=5"], "num_tokens=5"),
        ([], [], "python"),
        (["x.py"], ["python", "x.py", "\udcff"], "x.py '?'"),
    ],
)
def test_the_command_as_one_would_type_it_without_secrets(monkeypatch, arguments, of_interpreter, shown):
    monkeypatch.setenv("SOME_API_KEY", "s3cret-of-the-environment")
    text = command(arguments, of_interpreter)
    assert shown in text and "s3cret" not in text and "abc" not in text
    json.dumps(text).encode()


def test_a_long_command_is_cut():
    assert len(command(["x.py"], ["python", "x.py", "a" * 10_000])) < environment.MAX_COMMAND + 10


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_the_commit_is_that_of_the_checkout_with_its_changes(tmp_path, monkeypatch):
    """Of the repository that holds this very module at its place, whatever `GIT_DIR` says; of no other."""
    module = tmp_path / "grpo/run/environment.py"
    module.parent.mkdir(parents=True)
    module.write_text("1")
    monkeypatch.setattr(environment, "__file__", str(module))
    monkeypatch.setattr(environment, "PROGRAM", "no-such-distribution")
    assert environment.find_code() is None

    def git(*words):
        identity = ("-c", "user.name=a", "-c", "user.email=a@b")
        return subprocess.run(["git", "-C", tmp_path, *identity, *words], check=True, capture_output=True, text=True)

    git("init")
    git("add", ".")
    git("commit", "-m", "one")
    commit = git("rev-parse", "HEAD").stdout.strip()
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    assert environment.find_code() == {"commit": commit, "changed_files": 0}
    module.write_text("2")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/new").write_text("not tracked")
    assert environment.find_code() == {"commit": commit, "changed_files": 1}


def test_gpus_as_nvidia_smi_lists_them(monkeypatch):
    listed = "NVIDIA H200, 143771\nNVIDIA A100-SXM4-80GB, 81920\nNo devices, [N/A]\n"
    monkeypatch.setattr(environment, "_answer", lambda *_: listed)
    assert environment.find_gpus() == [
        {"name": "NVIDIA H200", "memory_gb": 140.4},
        {"name": "NVIDIA A100-SXM4-80GB", "memory_gb": 80.0},
    ]
    monkeypatch.undo()
    assert environment._answer(sys.executable, "-c", "raise SystemExit(1)") is None
    assert environment._answer("no-such-program") is None
