"""Configurations: every shipped recipe loads, every mistake is one sentence, and nothing heavy is imported."""

import subprocess
import sys
from pathlib import Path

import pytest

from blip3o_grpo.configs import (
    ConfigError,
    RunConfig,
    differing_keys,
    dump_config,
    load_run_config,
    load_warmstart_config,
)
from blip3o_grpo.configs.study import load_study_config

RECIPES = sorted(Path(__file__).parents[2].glob("configs/*.yaml"))
MINIMAL = """
run_dir: runs/x
prompts: {train: train.txt, heldout: heldout.txt}
rewards:
  - name: ocr
"""


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(MINIMAL)
    return path


def error_of(path, *overrides):
    with pytest.raises(ConfigError) as caught:
        load_run_config(path, overrides)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_shipped_recipe_loads(path):
    load_warmstart_config(path) if "warmstart" in path.stem else load_run_config(path)


def test_the_published_recipe_has_the_published_numbers():
    config = load_run_config(Path(__file__).parents[2] / "configs/blip3o_next_ocr.yaml")
    assert (config.trainer.learning_rate, config.trainer.beta) == (1e-6, 0.001)
    assert (config.rollout.group_size, config.rollout.prompts_per_step) == (16, 32)


@pytest.mark.parametrize(
    ("name", "result"),
    [("1gpu", "TexT"), ("4nodes", "TexT"), ("ocr", "TexT"), ("geneval", "Geneval")],
)
def test_full_size_recipes_are_the_published_way_of_training(name, result):
    """Cosine, noise of its own for every image, the published starting policy; the name of the published result."""
    file = Path(__file__).parents[2] / f"configs/blip3o_next_{name}.yaml"
    config = load_run_config(file)
    assert (config.trainer.lr_scheduler_type, config.rollout.noise) == ("cosine", "independent")
    assert config.trainer.mismatch_bound == 0.03
    assert Path(config.policy.path).name == "BLIP3o-NEXT-SFT-3B"
    assert f"BLIP3o/BLIP3o-NEXT-GRPO-{result}-3B" in file.read_text()


def test_the_warm_start_recipe_is_the_released_choice():
    config = load_warmstart_config(Path(__file__).parents[2] / "configs/blip3o_next_warmstart.yaml")
    assert (config.preprocessing, config.labels, config.adam_beta2) == ("released", "all", 0.999)
    assert config.trains == ("ar", "connector", "sana_caption") and config.strategy == "joint"


def test_importing_configs_imports_nothing_heavy():
    code = "import blip3o_grpo.configs, sys; print([m for m in ('torch', 'vllm', 'ray') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_a_dumped_config_loads_as_the_same_config(recipe, tmp_path):
    config = load_run_config(recipe, ["trainer.learning_rate=1e-6", "rewards.0.options.variant=exact"])
    (tmp_path / "again.yaml").write_text(dump_config(config))
    assert load_run_config(tmp_path / "again.yaml") == config


def test_overrides_reach_sections_list_items_and_free_options(recipe):
    config = load_run_config(
        recipe, ["trainer.max_steps=7", "rewards.0.weight=0.5", "rewards.0.options.floor=0.3", "trainer.beta=1e-3"]
    )
    assert config.trainer.max_steps == 7
    assert config.rewards[0].weight == 0.5
    assert config.rewards[0].options == {"floor": 0.3}
    assert config.trainer.beta == 1e-3


def test_relative_paths_belong_to_the_file_and_overridden_ones_to_the_shell(recipe, tmp_path, monkeypatch):
    shell = tmp_path / "elsewhere"
    shell.mkdir()
    monkeypatch.chdir(shell)
    config = load_run_config(recipe, ["prompts.heldout=mine.txt"])
    assert config.prompts.train == str(tmp_path / "train.txt")
    assert config.prompts.heldout == str(shell / "mine.txt")
    assert config.policy.path == "tiny"
    assert config.run_dir == "runs/x"


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("trainer.learning_rte=1", ["run.yaml", "'trainer.learning_rte'", "did you mean 'learning_rate'"]),
        ("trainer.lr=1", ["'trainer.lr'", "did you mean 'learning_rate'"]),
        ("trainr.beta=1", ["'trainr'", "did you mean 'trainer'"]),
        ("rewards.0.wieght=1", ["'rewards.0.wieght'", "did you mean 'weight'"]),
        ("trainer.zzzz=1", ["known keys: max_steps"]),
        ("trainer.loss_type=ppo", ["'trainer.loss_type'", "'ppo'", "'grpo', 'dr_grpo'"]),
        ("rollout.group_size=1", ["'rollout.group_size' is 1", "give 2 or more"]),
        ("rollout.guidance_interval=[0.7, 0.3]", ["rollout.guidance_interval=[0.7, 0.3]", "0 <= LOW < HIGH <= 1"]),
        ("rewards.3.weight=1", ["no item of a list of 1"]),
        ("rewards.\u00b2.weight=2", ["'\u00b2' is no item of a list of 1"]),  # a digit, but no number
        ("rewards.\u0663.weight=2", ["is no item of a list of 1"]),
        ("run_dir.x=1", ["nothing can be set below text"]),
        ("trainer.max_steps", ["expected `section.key=value`"]),
        ("rewards.0.weight=0", ["all weights are 0"]),
        ("trainer=3", ["'trainer'"]),
    ],
)
def test_a_mistaken_override_is_named_with_its_nearest_right_value(recipe, override, parts):
    message = error_of(recipe, override)
    assert all(part in message for part in parts), message


def test_unreadable_files_are_named(tmp_path, recipe):
    assert "did you mean" in error_of(tmp_path / "rum.yaml")
    for name, content, part in [
        ("bytes.yaml", b"\xff\xfe", "not UTF-8"),
        ("broken.yaml", b"a: [1,\nb: 2", "not valid YAML"),
        ("list.yaml", b"- 1", "found a list"),
        ("twice.yaml", MINIMAL.encode() + b"\nrun_dir: other\n", "'run_dir' appears twice"),
        ("empty.yaml", b"", "found nothing"),
        ("missing.yaml", b"run_dir: x\n", "is required"),
    ]:
        path = tmp_path / name
        path.write_bytes(content)
        message = error_of(path)
        assert name in message and part in message, message


def test_differing_keys_are_dotted(recipe):
    first = load_run_config(recipe)
    second = load_run_config(recipe, ["trainer.beta=0.5", "rewards.0.weight=2", "rewards.0.options.a=1"])
    assert differing_keys(first, second) == ["rewards.0.weight", "rewards.0.options.a", "trainer.beta"]
    assert differing_keys(first, RunConfig.model_validate(first.model_dump())) == []


@pytest.mark.parametrize(
    ("load", "file", "command"),
    [
        (load_run_config, "studies/tiny_rewards.yaml", "ablate"),
        (load_run_config, "blip3o_next_warmstart.yaml", "warmstart"),
        (load_warmstart_config, "tiny_ocr.yaml", "train"),
        (load_warmstart_config, "studies/tiny_rewards.yaml", "ablate"),
        (load_study_config, "tiny_ocr.yaml", "train"),
        (load_study_config, "blip3o_next_warmstart.yaml", "warmstart"),
    ],
)
def test_a_file_of_another_kind_is_told_its_command(load, file, command):
    with pytest.raises(ConfigError, match=f"{file}: this is the file of a .*; `blip3o-grpo {command}` takes it"):
        load(RECIPES[0].parent / file)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("trainer.vllm_importance_sampling_mode=token_trunc", "token_truncate"),
        ("trainer.vllm_importance_sampling_clip_max=0.5", "trainer.vllm_importance_sampling_clip_max"),
        ("trainer.vllm_importance_sampling_clip_max=null", "trainer.vllm_importance_sampling_clip_max"),
        ("trainer.vllm_importance_sampling_clip_max=.inf", "trainer.vllm_importance_sampling_clip_max"),
        ("trainer.vllm_importance_sampling_clip_min=1.5", "trainer.vllm_importance_sampling_clip_min"),
        ("trainer.vllm_importance_sampling_cap=2", "trainer.vllm_importance_sampling_c"),
        ("trainer.min_group_std=-0.1", "trainer.min_group_std"),
        ("trainer.min_group_std=.nan", "trainer.min_group_std"),
        ("trainer.min_group_std=true", "trainer.min_group_std"),
    ],
)
def test_numbers_of_the_loss_are_checked(recipe, override, said):
    assert said in error_of(recipe, override)


def test_importance_weights_have_room(recipe):
    """Bounds of 1 on both sides would count no ratio but 1."""
    bounds = [f"trainer.vllm_importance_sampling_clip_{side}=1" for side in ("min", "max")]
    assert "clip_min is 1, and so is vllm_importance_sampling_clip_max" in error_of(recipe, *bounds)
    trainer = load_run_config(recipe, bounds[:1]).trainer
    assert (trainer.vllm_importance_sampling_clip_min, trainer.vllm_importance_sampling_clip_max) == (1.0, 2.0)


def test_defaults_of_the_loss(recipe):
    trainer = load_run_config(recipe).trainer
    assert trainer.vllm_importance_sampling_mode == "token_truncate"
    assert trainer.vllm_importance_sampling_clip_max == 2.0 and trainer.vllm_importance_sampling_clip_min is None
    assert trainer.min_group_std == 0.05


@pytest.mark.parametrize("path", [path for path in RECIPES if "next" in path.name and "warmstart" not in path.name])
def test_full_size_recipes_bound_the_mismatch(path):
    """bfloat16 samplers against autocast training; .1 left hardly any effective sample of whole images."""
    assert load_run_config(path).trainer.mismatch_bound == 0.03
