"""What a run's check says of rewards and their files, each thing in one line, once."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from blip3o_grpo.configs import ConfigError, RewardSection, load_run_config
from blip3o_grpo.rollout import Prompt
from blip3o_grpo.validate import check_inputs, check_prompts, find_checked

RECIPE = Path(__file__).parents[2] / "configs/tiny_ocr.yaml"
REWARD = "def half(images, prompts, metadata):\n    return [0.5] * len(images)\n"


def test_which_of_two_files_of_one_name_is_used_is_said_once(tmp_path, monkeypatch, capsys):
    for folder in ("recipe", "site"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "twice.py").write_text(REWARD)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    section = RewardSection(name="half", type="twice:half", folder=str(tmp_path / "recipe"))
    for _ in range(3):
        find_checked(section)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: ") and f"{tmp_path}/recipe/twice.py is used" in line


def test_what_rewards_warn_of_is_printed_once(make_config, capsys):
    options = {"detector": "shapes", "colors": "nearest"}
    config = make_config(rewards=[{"name": "geneval", "options": options}])
    record = {"tag": "mine", "include": [{"class": "star", "count": 1}]}
    prompts = [Prompt(id=text, text=text, metadata=record) for text in ("a star", "one star")]
    check_prompts(prompts, "mine.jsonl", SimpleNamespace(encode=len), config)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(
        "warning: mine.jsonl: unknown GenEval `tag` 'mine': it is scored as all kinds of prompts but"
    )


def test_too_few_pictures_for_a_reward_that_compares_with_the_start_are_told_at_once(tmp_path):
    """Known from the recipe; it used to be said after all models were loaded and the pictures drawn."""
    few = ["evaluation.num_prompts=3", "evaluation.images_per_prompt=2", f"run_dir={tmp_path / 'run'}"]
    with pytest.raises(ConfigError, match=r"reward 'guard' needs at least 8 images .*num_prompts=3 and .*give 6 \("):
        check_inputs(load_run_config(RECIPE, few))
    assert check_inputs(load_run_config(RECIPE, ["evaluation.num_prompts=4", *few[1:]]))


def test_gold_that_scores_too_few_held_out_prompts_is_told_at_once(tmp_path):
    prompts = tmp_path / "heldout.jsonl"
    texts = [f'a sign that says "{word}"' for word in ("TAXI", "BANK", "CAFE")] + [f"a wall {i}" for i in range(5)]
    prompts.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in texts))
    other = [f"run_dir={tmp_path / 'run'}", f"prompts.heldout={prompts}", "rewards.0.weight=0", "rewards.1.weight=1"]
    with pytest.raises(ConfigError) as caught:
        check_inputs(load_run_config(RECIPE, [*other, "guards.gold=[ocr]"]))
    assert "guards.gold: reward 'ocr' scores 3 of the 8 held-out prompts that are evaluated" in str(caught.value)
    assert "a fall shows on 4 or more; it needs " in str(caught.value)


def test_gold_is_no_trained_reward_under_another_name(tmp_path):
    values = [f"run_dir={tmp_path / 'run'}", "rewards.1.type=ocr", "rewards.1.weight=0", "guards.gold=[guard]"]
    with pytest.raises(ConfigError, match=r"guards.gold: reward 'guard' is what the run trains on as 'ocr'; name one"):
        check_inputs(load_run_config(RECIPE, values))
    assert check_inputs(load_run_config(RECIPE, [*values, "rewards.1.options={variant: exact}"]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["rollout.dynamic_sampling={outcome: ocr}"], "scores of reward 'ocr' are graded.*right, such as 0.99"),
        (["rollout.dynamic_sampling={outcome: guard}"], "scores of reward 'guard' are graded"),
        (["rollout.dynamic_sampling={outcome: ocr, right: 0.99}"], None),
    ],
)
def test_an_outcome_is_right_or_wrong(tmp_path, options, message):
    config = load_run_config(RECIPE, [f"run_dir={tmp_path / 'run'}", *options])
    if message is None:
        check_inputs(config)
        return
    with pytest.raises(ConfigError, match=f"rollout.dynamic_sampling.outcome: the {message}"):
        check_inputs(config)


def test_geneval_s_strict_verdict_is_an_outcome_and_its_dense_score_is_none(tmp_path):
    recipe, options = RECIPE.with_name("tiny_geneval.yaml"), [f"run_dir={tmp_path / 'run'}"]
    check_inputs(load_run_config(recipe, [*options, "rollout.dynamic_sampling={outcome: geneval_strict}"]))
    with pytest.raises(ConfigError, match=r"'geneval' are graded.*give the reward options: \{score: strict\}, or"):
        check_inputs(load_run_config(recipe, [*options, "rollout.dynamic_sampling={outcome: geneval}"]))


@pytest.mark.parametrize(("right", "told"), [(2, "no image"), (0, "every image"), (-1, "every image")])
def test_right_and_wrong_leave_both_possible(tmp_path, right, told):
    recipe, options = RECIPE.with_name("tiny_geneval.yaml"), [f"run_dir={tmp_path / 'run'}"]
    section = f"rollout.dynamic_sampling={{outcome: geneval_strict, right: {right}}}"
    with pytest.raises(ConfigError, match=rf"right={right}: reward 'geneval_strict' says 0 or 1, so {told} would"):
        check_inputs(load_run_config(recipe, [*options, section]))


@pytest.mark.parametrize("section", ["curriculum={}", "dynamic_sampling={outcome: ocr, right: 0.9}"])
def test_prompts_are_chosen_only_where_there_are_others(tmp_path, section):
    train = tmp_path / "train.jsonl"
    train.write_text("".join(Path(load_run_config(RECIPE).prompts.train).read_text().splitlines(True)[:16]))
    values = [f"run_dir={tmp_path / 'run'}", f"prompts.train={train}", f"rollout.{section}"]
    with pytest.raises(ConfigError, match=rf"rollout\.{section.split('=')[0]}: every step has all 16 prompts"):
        check_inputs(load_run_config(RECIPE, values))
    assert check_inputs(load_run_config(RECIPE, [*values, "rollout.prompts_per_step=8"]))


def test_an_outcome_applies_to_some_prompt(tmp_path):
    recipe = RECIPE.with_name("tiny_geneval.yaml")
    values = [f"run_dir={tmp_path / 'run'}", "rewards.1.type=ocr", "rewards.1.options={}", "rewards.1.name=read"]
    values.append("rollout.dynamic_sampling={outcome: read, right: 0.9}")
    with pytest.raises(ConfigError, match="outcome: reward 'read' applies to no prompt of .*it needs"):
        check_inputs(load_run_config(recipe, values))


def test_a_plugin_s_outcome_is_looked_at_when_it_scores(tmp_path):
    (tmp_path / "mine.py").write_text(REWARD)
    section = RewardSection(name="half", type="mine:half", folder=str(tmp_path))
    assert find_checked(section).is_outcome({}) is None
