"""Where a recipe's own reward file is looked for, and that the place is kept."""

import pytest

from blip3o_grpo.configs import dump_config, load_run_config
from blip3o_grpo.configs.reward_files import reward_folder
from blip3o_grpo.configs.study import load_study_config
from blip3o_grpo.run.folder import RunFolder

RECIPE = """
run_dir: {run}
prompts: {{train: /data/train.txt, heldout: /data/heldout.txt}}
rewards:
  - {{name: mine, type: "my_rewards:brightness"}}
  - {{name: ocr, weight: 0.5}}
"""


@pytest.fixture
def places(tmp_path, monkeypatch):
    """Folders of the recipe and of the shell."""
    recipe, shell = tmp_path / "recipe", tmp_path / "shell"
    recipe.mkdir()
    shell.mkdir()
    (recipe / "run.yaml").write_text(RECIPE.format(run=tmp_path / "run"))
    monkeypatch.chdir(shell)
    return recipe, shell


def folder_of(path, *overrides):
    mine, ocr = load_run_config(path, overrides).rewards
    assert ocr.folder is None
    return mine.folder


def test_beside_the_recipe_then_in_the_working_folder_then_installed(places):
    recipe, shell = places
    assert folder_of(recipe / "run.yaml") is None
    (shell / "my_rewards.py").touch()
    assert folder_of(recipe / "run.yaml") == str(shell)
    (recipe / "my_rewards").mkdir()
    assert folder_of(recipe / "run.yaml") == str(shell)  # a folder of data
    (recipe / "my_rewards/__init__.py").touch()
    assert folder_of("../recipe/run.yaml") == str(recipe)
    (shell / "other.py").touch()
    assert folder_of(recipe / "run.yaml", "rewards.0.type=other:x") == str(shell)


def test_a_saved_configuration_finds_it_again_from_anywhere(places, tmp_path, monkeypatch):
    recipe, shell = places
    (recipe / "my_rewards.py").touch()
    config = load_run_config(recipe / "run.yaml")
    run = RunFolder(config.run_dir)
    run.path.mkdir()
    run.config.write_text(dump_config(config))
    (shell / "my_rewards.py").touch()
    assert folder_of(run.config) == str(recipe)
    run.check(config)
    moved = tmp_path / "moved"
    recipe.rename(moved)
    run.check(load_run_config(moved / "run.yaml"))  # the same run, whose recipe and reward file lie elsewhere now


@pytest.mark.parametrize("target", ["a" * 300 + ":x", "..:x", ":x", "/etc:x", "a:", "é\ud800:x", "a b:c"])
def test_names_that_no_file_can_have_are_found_nowhere(tmp_path, target):
    assert reward_folder(target, [tmp_path]) is None


def test_rewards_of_a_study_lie_beside_its_file(places, tmp_path):
    recipe, _ = places
    (recipe / "my_rewards.py").touch()
    (recipe / "study.yaml").write_text(
        "study_dir: s\nbase: run.yaml\narms: [{name: a, weights: {mine: 1}}]\n"
        'rewards: [{name: more, type: "my_rewards:other"}]\n'
    )
    (reward,) = load_study_config(recipe / "study.yaml").rewards
    assert reward.folder == str(recipe)
