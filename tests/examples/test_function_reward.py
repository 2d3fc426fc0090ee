"""The example of a function beside its recipe: it passes the check, and trains with one command from any folder."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from blip3o_grpo.configs import load_run_config
from blip3o_grpo.rewards import check_reward
from blip3o_grpo.validate import check_rewards

EXAMPLE = Path(__file__).parents[2] / "examples" / "function_reward"


def test_it_keeps_the_promises_of_a_reward():
    checked = check_reward("my_rewards:brightness", folder=EXAMPLE, options={"target": 0.7})
    assert checked.kind == "pointwise" and all(0 <= score <= 1 for score in checked)


def test_the_recipe_names_a_file_beside_it(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    config = load_run_config(EXAMPLE / "recipe.yaml")
    assert config.rewards[0].folder == str(EXAMPLE)
    check_rewards(config)


@pytest.mark.slow
def test_it_trains_and_resumes_from_another_folder(tmp_path):
    """A hostile folder, too: the reward's neighbours are named like modules of Python and of this project."""
    recipe = shutil.copytree(EXAMPLE, tmp_path / "recipe", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("configs", "rewards", "random", "torch", "ray"):
        (recipe / f"{name}.py").write_text("raise RuntimeError('nobody asked for this file')\n")
    shell = tmp_path / "shell"
    shell.mkdir()
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, "-m", "blip3o_grpo.cli", "train", str(recipe / "recipe.yaml"), f"run_dir={tmp_path}/run"]
    for _ in range(2):  # the second is a resume of a finished run
        done = subprocess.run(command, cwd=shell, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert summary["steps"] == 2 and 0 <= summary["heldout"]["after"]["brightness"] <= 1
