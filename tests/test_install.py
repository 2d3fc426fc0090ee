"""What `pip install` brings: one name, all of it, and nothing that a user's own files could come in the way of."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = {"grpo": "", "configs": "configs/", "policies": "policies/", "rewards": "rewards/", "rollout": "rollout/"}
"""Folders of the checkout, and where they lie in the package."""
NAME = "blip3o_grpo"
REFUSE = 'raise ImportError("this file is not ours")\n'


def readme_example() -> tuple[str, str]:
    """README's reward in ten lines and the recipe that names it."""
    section = (ROOT / "README.md").read_text(encoding="utf-8").split("## Write a reward in ten lines")[1]
    return tuple(section.split(f"```{language}\n")[1].split("```")[0] for language in ("python", "yaml"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy: a build leaves its files beside the sources, and takes old ones up again."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in FOLDERS:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--wheel-dir", str(out), str(source)], check=True, capture_output=True)
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def python(wheel, tmp_path_factory):
    """Interpreter of a new environment that holds the wheel, and finds everything else where this one has it."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", f"--python={folder / 'bin' / 'python'}"]
    subprocess.run([*pip, "install", "--no-deps", "--no-compile", str(wheel)], check=True, capture_output=True)
    # As a path only: its own .pth files, and with them the checkout, are not followed.
    lines = [sysconfig.get_path("purelib"), "import _blip3o_torchvision_ops"]
    (site / "others.pth").write_text("\n".join(lines) + "\n")
    return folder / "bin" / "python"


@pytest.fixture
def hostile(tmp_path):
    """A working folder whose own files have the names of the checkout's folders."""
    for name in ("rewards.py", "policies.py", "configs/__init__.py", "rollout/__init__.py", "grpo/__init__.py"):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(REFUSE)
    return tmp_path


def run(python, folder, *arguments):
    """A command in a folder that is on the path too, as many users' shells have it."""
    environment = {"PATH": f"{python.parent}:/usr/bin:/bin", "HOME": str(Path.home()), "PYTHONPATH": "."}
    return subprocess.run(arguments, cwd=folder, env=environment, capture_output=True, text=True)


def test_the_wheel_holds_one_name_and_every_file(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {NAME}
    wanted = {
        f"{NAME}/{inside}{file.relative_to(ROOT / folder).as_posix()}"
        for folder, inside in FOLDERS.items()
        for file in (ROOT / folder).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert not wanted - names, "these files of the checkout are not in the wheel"


def test_a_folder_with_our_names_is_in_nobodys_way(python, hostile):
    planned = run(python, hostile, str(python.with_name("blip3o-grpo")), "plan", str(ROOT / "configs/tiny_ocr.yaml"))
    assert planned.returncode == 0, planned.stderr
    (hostile / "my_rewards.py").write_text(readme_example()[0])
    code = "import blip3o_grpo as bg; print(bg.check_reward('my_rewards:brightness'), bg.__file__)"
    checked = run(python, hostile, str(python), "-c", code)
    assert checked.returncode == 0, checked.stderr
    assert str(python.parents[1]) in checked.stdout  # the wheel's, not the checkout's


def test_the_readme_example_trains_in_such_a_folder(python, hostile):
    """Driver and workers alike, with README's one command; smaller, and with prompts that lie elsewhere."""
    reward, recipe = readme_example()
    (hostile / "my_rewards.py").write_text(reward)
    (hostile / "my_recipe.yaml").write_text(recipe.replace("configs/prompts", str(ROOT / "configs/prompts")))
    small = (
        "trainer.max_steps=2",
        "rollout.prompts_per_step=2",
        "rollout.group_size=2",
        "rollout.num_diffusion_steps=2",
    )
    command = ("train", "my_recipe.yaml", *small, "evaluation.num_prompts=4", "evaluation.images_per_prompt=1")
    trained = run(python, hostile, str(python.with_name("blip3o-grpo")), *command)
    assert trained.returncode == 0, trained.stdout + trained.stderr
    lines = (hostile / "runs/my_reward/metrics.jsonl").read_text().splitlines()
    assert len(lines) == 2 and all(0 <= json.loads(line)["reward/brightness"] <= 1 for line in lines)
