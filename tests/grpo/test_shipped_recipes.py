"""The first lines of each full-size recipe are commands that exist, and they write just what the recipe reads."""

import ast
import importlib.util
import re
import shlex
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from blip3o_grpo.cli import app
from blip3o_grpo.configs import load_run_config, load_warmstart_config
from blip3o_grpo.configs.shipped import RECIPES, STUDIES, all_shipped, find_recipe
from blip3o_grpo.configs.study import load_study_config
from blip3o_grpo.policies import PromptEncoder, resolve_policy_path
from blip3o_grpo.prompt_data.overlap import find_overlaps
from blip3o_grpo.rollout import load_prompts
from blip3o_grpo.validate import check_prompts

ROOT = RECIPES.parent
FULL_SIZE = sorted(path.stem for path in RECIPES.glob("blip3o_next_*.yaml"))
TRAINED = [name for name in FULL_SIZE if "warmstart" not in name]


def commands(name: str) -> list[list[str]]:
    """Commands in the comment at the top of a recipe, in their order, as words."""
    head = (RECIPES / f"{name}.yaml").read_text(encoding="utf-8").split("\nrun_dir:")[0]
    indented = "\n".join(line[4:] for line in head.splitlines() if line.startswith("#   "))
    return [shlex.split(line) for line in indented.replace("\\\n", " ").splitlines()]


def option(command: list[str], name: str) -> str:
    return command[command.index(name) + 1]


def config_of(name: str):
    return (load_warmstart_config if "warmstart" in name else load_run_config)(find_recipe(name))


def one(name: str, *start: str) -> list[str]:
    """The recipe's only command that starts so."""
    (found,) = [command for command in commands(name) if command[: len(start)] == list(start)]
    return found


def ours(command: list[str]) -> tuple[typer.core.TyperCommand, list[str]]:
    """The command of `blip3o-grpo` that these words call, and its arguments."""
    found, words = typer.main.get_command(app), command[1:]
    while hasattr(found, "commands"):
        found, words = found.commands[words[0]], words[1:]
    return found, words


@cache
def hf_options() -> set[str]:
    program = [Path(sys.executable).parent / "hf", "download", "--help"]
    shown = subprocess.run(program, capture_output=True, text=True, check=True, timeout=120)
    return set(re.findall(r"--[a-z-]+", shown.stdout))


def known_options(command: list[str]) -> set[str]:
    """Options that the program of a command takes."""
    if command[0] == "hf":
        return hf_options()
    if command[0] == "blip3o-grpo":
        return {name for parameter in ours(command)[0].params for name in parameter.opts}
    return set(re.findall(r'"(--[a-z-]+)"', (ROOT / command[1]).read_text(encoding="utf-8")))


@pytest.mark.parametrize("name", FULL_SIZE)
def test_the_download_is_a_published_checkpoint_and_lies_where_the_recipe_looks(name):
    command = one(name, "hf", "download")
    assert f"`{command[2]}`" in (ROOT / "docs/checkpoints.md").read_text(encoding="utf-8")
    assert Path(config_of(name).policy.path).resolve() == ROOT / option(command, "--local-dir")


@pytest.mark.parametrize("name", FULL_SIZE)
def test_the_last_command_starts_the_recipe(name):
    command, words = ours(commands(name)[-1])
    assert command.name == ("warmstart" if "warmstart" in name else "train") and words[0] == name
    if name in TRAINED:
        load_run_config(find_recipe(name), words[1:])


@pytest.mark.parametrize("name", FULL_SIZE)
def test_all_commands_and_their_options_exist(name):
    for command in commands(name):
        if command[:2] == ["python", "-c"]:
            (imported,) = ast.parse(command[2]).body[0].names
            assert importlib.util.find_spec(imported.name)
        elif command[0] == "curl":  # what it fetches is read by a later command or by the recipe
            later = [word for other in commands(name)[commands(name).index(command) + 1 :] for word in other]
            assert option(command, "-o") in later
        else:
            assert {word for word in command if word.startswith("--")} <= known_options(command), command


@pytest.mark.parametrize("name", TRAINED)
def test_the_prompts_command_writes_what_the_recipe_reads(name, tmp_path, monkeypatch):
    """Run for real, with fewer prompts, in a folder that looks like the checkout."""
    recipe = shutil.copytree(RECIPES, tmp_path / "configs", ignore=shutil.ignore_patterns("*.py*", "__pycache__"))
    monkeypatch.chdir(tmp_path)
    command = one(name, "blip3o-grpo", "prompts")
    command[command.index("--count") + 1] = "200"
    if "--exclude-file" in command:  # the benchmark's own file, which is not ours to ship: other prompts of its form
        run("prompts", "geneval", "--count", "40", "--seed", "1", "--out", option(command, "--exclude-file"))
    run(*command[1:])
    config = load_run_config(recipe / f"{name}.yaml")
    train, heldout = load_prompts(config.prompts.train), load_prompts(config.prompts.heldout)
    assert len(train) == 200 and len(heldout) >= 40 and not find_overlaps(train, heldout)
    encoder = PromptEncoder.from_pretrained(resolve_policy_path("tiny"), plain=True)
    for file, prompts in ((config.prompts.train, train), (config.prompts.heldout, heldout)):
        check_prompts(prompts, file, encoder, config)


@pytest.mark.parametrize("name", TRAINED)
def test_the_plan_needs_none_of_it(name):
    assert "released 3B model" in run("plan", name, "--json")


@pytest.mark.parametrize("name", FULL_SIZE)
def test_without_it_the_recipe_says_where_to_look(name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    command = ["warmstart", name] if "warmstart" in name else ["train", name]
    config = config_of(name)
    if Path(config.policy.path).is_dir() or Path(getattr(config, "captions", "")).is_file():
        pytest.skip("this checkout has what the recipe reads")
    refused = CliRunner().invoke(app, command)
    assert refused.exit_code == 2
    assert name == "blip3o_next_geneval" or "the first lines of a shipped recipe say how" in refused.stderr


def test_every_shipped_file_is_listed_with_the_command_that_takes_it():
    load = {"train": load_run_config, "warmstart": load_warmstart_config, "ablate": load_study_config}
    listed = all_shipped()
    assert {recipe.name for recipe in listed} == {file.stem for file in (*RECIPES.glob("*.yaml"), *STUDIES.glob("*"))}
    for recipe in listed:
        load[recipe.command](find_recipe(recipe.name, STUDIES if recipe.command == "ablate" else RECIPES))
        assert len(recipe.purpose) > 20 and not recipe.purpose.endswith((".", ":", ","))
    shown = run("recipes")
    assert all(recipe.name in shown for recipe in listed)


def run(*args: str) -> str:
    done = CliRunner().invoke(app, list(args))
    assert done.exit_code == 0, done.output + done.stderr
    return done.stdout
