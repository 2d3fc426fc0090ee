"""The example plug-in, installed as a third party would install it, is found, used and checked."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "reward_plugin"


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Environment variables of a Python that has the package installed, built from a copy of it."""
    folder = tmp_path_factory.mktemp("plugin")
    source = shutil.copytree(EXAMPLE, folder / "source", ignore=shutil.ignore_patterns("__pycache__"))
    site = folder / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--no-index", "--no-deps", "--no-build-isolation", "--target", site, source], check=True)
    search = [str(site), str(EXAMPLE.parents[1]), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(search), "PYTHONDONTWRITEBYTECODE": "1"}


def run(environment, *arguments, cwd):
    result = subprocess.run([sys.executable, *arguments], env=environment, cwd=cwd, capture_output=True, text=True)
    return result.returncode, result.stdout + result.stderr


def test_a_whole_package_takes_less_than_60_lines():
    files = [file for file in EXAMPLE.iterdir() if file.is_file()]
    assert {file.suffix for file in files} == {".toml", ".py"}
    assert sum(len(file.read_text().splitlines()) for file in files) < 60


def test_the_installed_reward_is_used_by_its_name(installed, tmp_path):
    code = (
        "import json; from blip3o_grpo.rewards import available_rewards, build_reward, example_batch, score;"
        "assert 'colorfulness' in available_rewards();"
        "print(json.dumps(score(build_reward('colorfulness', {'midpoint': 30}), example_batch(3))))"
    )
    status, output = run(installed, "-c", code, cwd=tmp_path)
    assert status == 0, output
    noise, white, gradient = json.loads(output)
    assert 0.5 < noise < 1 and white == gradient == 0


def test_its_mistakes_are_named_like_those_of_our_own(installed, tmp_path):
    for options, message in (
        ("{'midpont': 1}", "did you mean 'midpoint'?"),
        ("{'midpoint': 0}", "colorfulness midpoint is 0; it must be above 0"),
    ):
        code = f"from blip3o_grpo.rewards import build_reward; build_reward('colorfulness', {options})"
        status, output = run(installed, "-c", code, cwd=tmp_path)
        assert status == 1 and message in output


def test_its_own_test_passes(installed, tmp_path):
    test = shutil.copy(EXAMPLE / "test_colorfulness.py", tmp_path)
    status, output = run(installed, "-m", "pytest", "-q", "-p", "no:cacheprovider", test, cwd=tmp_path)
    assert status == 0 and "1 passed" in output, output
