"""Studies: what a study file becomes, and every mistake in it is one sentence before anything starts."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

import blip3o_grpo.cluster
from blip3o_grpo.cli import app
from blip3o_grpo.configs import ConfigError, RewardSection, dump_config
from blip3o_grpo.configs.study import (
    ArmSection,
    StudyConfig,
    arm_config,
    as_overrides,
    flatten,
    load_base,
    load_study_config,
    weights_of,
)
from blip3o_grpo.policies import BLIP3oNext
from blip3o_grpo.study.design import plan_study

SHIPPED = sorted(Path(__file__).parents[3].glob("configs/studies/*.yaml"))


@pytest.fixture(autouse=True)
def nothing_loads(monkeypatch):
    """Any attempt to load weights or to start Ray fails the test."""

    def refuse(*_, **__):
        pytest.fail("a model was loaded or Ray was started before the study was checked")

    monkeypatch.setattr(BLIP3oNext, "from_pretrained", refuse)
    monkeypatch.setattr(blip3o_grpo.cluster.ray, "init", refuse)


def error_line(path, *overrides):
    result = CliRunner().invoke(app, ["ablate", str(path), *overrides])
    assert result.exit_code == 2, result.output + repr(result.exception)
    lines = [line for line in result.stderr.strip().splitlines() if line]
    assert len(lines) == 1 and lines[0].startswith("error: "), result.stderr
    return lines[0]


def arm(name="a", **values):
    return {"name": name, "weights": {"ocr": 1}, **values}


def test_an_arm_may_give_a_section_its_defaults(study_files):
    arms = [
        arm(),
        arm("chosen", overrides={"rollout.curriculum": {}}),
        arm("adapters", overrides={"trainer": {"lora": {}}}),
    ]
    trials = plan_study(load_study_config(study_files.study(arms=arms, seeds=[0]))).trials
    assert [bool(trial.config.rollout.curriculum) for trial in trials] == [False, True, False]
    assert [bool(trial.config.trainer.lora) for trial in trials] == [False, False, True]
    given = load_study_config(study_files.study(arms=[arm()], seeds=[0]), ["trainer.ema={}"])
    assert plan_study(given).trials[0].config.trainer.ema


def test_every_arm_of_a_shipped_study_is_another_run():
    for file in SHIPPED:
        study = load_study_config(file)
        base = load_base(study)
        runs = [arm_config(base, arm).model_dump(mode="json") for arm in study.arms]
        assert all(run not in runs[:number] for number, run in enumerate(runs)), file


def test_arms_weigh_the_same_rewards_on_the_same_heldout_prompts(study_files):
    plan = plan_study(load_study_config(study_files.study(rewards=[{"name": "exact", "type": "ocr"}])))
    assert [trial.name for trial in plan.trials] == ["text/seed-0", "text/seed-1", "both/seed-0", "both/seed-1"]
    weights = [{r.name: r.weight for r in trial.config.rewards} for trial in plan.trials[::2]]
    assert weights == [
        {"ocr": 1, "geneval": 0, "guard": 0, "exact": 0},
        {"ocr": 1, "geneval": 0.5, "guard": 0, "exact": 0},
    ]
    text, both = plan.trials[1].config, plan.trials[3].config
    assert (text.seed, both.seed, both.trainer.beta) == (1, 1, 0.1)
    assert text.evaluation == both.evaluation and text.prompts == both.prompts
    assert text.evaluation.num_prompts == 70
    assert text.evaluation.num_diffusion_steps == plan.base.rollout.num_diffusion_steps
    lines = Path(text.prompts.heldout).read_text().splitlines()
    assert ['"suite": "signs"' in line for line in lines[:4]] == [True, False, True, False]
    assert [Path(trial.config.run_dir).relative_to(plan.folder) for trial in plan.trials[:1]] == [
        Path("arms/text/seed-0")
    ]


def test_without_suites_the_base_recipes_heldout_prompts_are_one(study_files):
    plan = plan_study(load_study_config(study_files.study(suites=[], base="ocr.yaml", arms=[arm()])))
    assert {name: len(prompts) for name, prompts in plan.suites.items()} == {"heldout": 10}


def test_the_same_study_may_come_back_with_more_arms_and_seeds(study_files, tmp_path):
    first = {"study_dir": str(tmp_path / "s"), "arms": [arm()], "seeds": [0]}
    plan_study(load_study_config(study_files.study(**first)))
    plan_study(load_study_config(study_files.study(**first)))
    more = {**first, "arms": [arm("b", weights={"guard": 1}), arm()], "seeds": [0, 5], "trials": {"concurrency": 2}}
    assert len(plan_study(load_study_config(study_files.study(**more))).trials) == 4


def test_without_goals_those_rewards_count_that_no_arm_trains_on(study_files, tmp_path):
    def names(**changes):
        return [goal.name for goal in plan_study(load_study_config(study_files.study(**changes))).goals]

    assert names() == ["signs/guard", "shapes/guard"]
    assert names(arms=[arm(weights={"ocr": 1, "guard": 1}), arm("b", weights={"geneval": 1, "ocr": 0})]) == []
    assert names(arms=[arm()], suites=[], base="ocr.yaml") == []
    given = [{"suite": "shapes", "reward": "geneval", "margin": 0.02}, {"suite": "signs", "reward": "ocr"}]
    study = load_study_config(study_files.study(goals=given, study_dir=str(tmp_path / "s")))
    assert [(goal.name, goal.margin) for goal in plan_study(study).goals] == [
        ("shapes/geneval", 0.02), ("signs/ocr", 0.05)
    ]  # fmt: skip
    changed = load_study_config(study_files.study(goals=given[:1], study_dir=str(tmp_path / "s")))
    assert len(plan_study(changed).goals) == 1  # goals are read anew: nothing was trained with them
    whole = study_files.study(suites=[], base="ocr.yaml", arms=[arm()], goals=[{"suite": "heldout", "reward": "ocr"}])
    assert plan_study(load_study_config(whole)).goals[0].name == "heldout/ocr"
    again = [{"name": "again", "type": "ocr"}, {"name": "exact", "type": "ocr", "options": {"variant": "exact"}}]
    assert names(rewards=again) == ["signs/guard", "signs/exact", "shapes/guard"]  # another name, the same reward


def test_a_reward_under_another_name_is_trained_on_too():
    base, exact = RewardSection(name="ocr"), RewardSection(name="exact", type="ocr", options={"variant": "exact"})
    rewards = [base, exact, RewardSection(name="again", type="ocr"), RewardSection(name="own", type="my:ocr")]
    assert weights_of(ArmSection(name="a", weights={"ocr": 2, "own": 0}), rewards) == {"ocr": 2, "again": 2}
    assert weights_of(ArmSection(name="a", weights={"again": 1, "exact": -1}), rewards) == {
        "ocr": 1, "exact": -1, "again": 1
    }  # fmt: skip


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_study_is_in_order(path, tmp_path):
    for smoke in (False, True):
        study = load_study_config(path, smoke=smoke)
        study = study.model_copy(update={"study_dir": str(tmp_path / str(smoke))})
        plan = plan_study(study)
        if smoke:
            assert len(plan.trials) == 2 and plan.trials[0].config.trainer.max_steps == 2
    assert StudyConfig.model_validate(study.model_dump(mode="json")) == study
    assert dump_config(study)


MISTAKES = {
    "unknown reward": (
        {"arms": [arm(weights={"ocrr": 1})]},
        ["arm 'a'", "unknown reward 'ocrr'", "did you mean 'ocr'?"],
    ),
    "unknown override": (
        {"arms": [arm(overrides={"trainer.learning_rte": 1})]},
        ["arm 'a'", "'trainer.learning_rte'", "did you mean 'learning_rate'?"],
    ),
    "unknown section": ({"arms": [arm(overrides={"trainr.beta": 1})]}, ["arm 'a'", "'trainr'", "'trainer'"]),
    "wrong value": ({"arms": [arm(overrides={"trainer.beta": -1})]}, ["arm 'a'", "'trainer.beta' is -1"]),
    "duplicate names": ({"arms": [arm(), arm()]}, ["arms: 'a' is used twice"]),
    "names by case": ({"arms": [arm("Ab"), arm("aB")]}, ["upper and lower case"]),
    "reserved name": ({"arms": [arm("start")]}, ["'start' means the untrained policy"]),
    "path as name": ({"arms": [arm("../x")]}, ["arms.0.name"]),
    "zero weights": ({"arms": [arm(weights={"ocr": 0, "guard": 0})]}, ["arm 'a'", "all weights are 0"]),
    "endless weight": ({"arms": [arm(weights={"ocr": float("inf")})]}, ["'arms.0.weights.ocr' is inf", "finite"]),
    "seed for all": ({"overrides": {"seed": 3}}, ["'seed' cannot be set for all arms", "`seeds`"]),
    "no weights": ({"arms": [arm(weights={})]}, ["arms.0.weights"]),
    "empty suite": ({"suites": [{"name": "e", "prompts": "empty.jsonl"}]}, ["suite 'e'", "holds no prompts"]),
    "missing suite": ({"suites": [{"name": "e", "prompts": "nowhere.jsonl"}]}, ["suite 'e'", "no such prompt file"]),
    "unmeasured suite": (
        {
            "base": "ocr.yaml",
            "suites": [{"name": n, "prompts": f"{n}.jsonl"} for n in ("signs", "plain")],
        },
        ["suite 'plain'", "no prompt that any reward"],
    ),
    "unmeasured reward": (
        {"suites": [{"name": "signs", "prompts": "signs.jsonl"}]},
        ["'geneval' applies to no held-out prompt"],
    ),
    "shared prompts": ({"suites": [{"name": n, "prompts": "signs.jsonl"} for n in "ab"]}, ["'a' and 'b' share"]),
    "fixed key": ({"arms": [arm(overrides={"evaluation.num_prompts": 3})]}, ["arm 'a'", "evaluation.num_prompts"]),
    "reward options": ({"arms": [arm(overrides={"rewards.0.weight": 3})]}, ["arm 'a'", "give `weights`"]),
    "unknown baseline": ({"baseline": "txt"}, ["unknown arm 'txt'", "did you mean 'text'?"]),
    "unknown reward type": (
        {"rewards": [{"name": "x", "type": "ocrr"}]},
        ["unknown reward 'ocrr'", "did you mean 'ocr'?"],
    ),
    "repeated reward": ({"rewards": [{"name": "ocr"}]}, ["'ocr' is used twice"]),
    "unknown key": ({"sedes": [1]}, ["unknown key 'sedes'", "did you mean 'seeds'?"]),
    "no base": ({"base": "bse.yaml"}, ["bse.yaml: no such file", "base.yaml"]),
    "goal on an unknown suite": (
        {"goals": [{"suite": "sgns", "reward": "ocr"}]},
        ["goals.0: unknown suite 'sgns'", "did you mean 'signs'?"],
    ),
    "unknown goal": (
        {"goals": [{"suite": "signs", "reward": "ocr"}, {"suite": "signs", "reward": "gaurd"}]},
        ["goals.1: on suite 'signs' nothing measures 'gaurd'", "did you mean 'guard'?"],
    ),
    "goal that the suite has not": (
        {"goals": [{"suite": "signs", "reward": "geneval"}]},
        ["goals.0: on suite 'signs' nothing measures 'geneval'", "known: ocr, guard"],
    ),
    "goal twice": (
        {"goals": [{"suite": "signs", "reward": "ocr", "margin": m} for m in (0.1, 0.2)]},
        ["goals: 'signs/ocr' is used twice"],
    ),
    "margin of 0": (
        {"goals": [{"suite": "signs", "reward": "ocr", "margin": 0}]},
        ["goals.0.margin", "give more than 0"],
    ),
    "margin below 0": ({"goals": [{"suite": "signs", "reward": "ocr", "margin": -1}]}, ["goals.0.margin"]),
    "endless margin": ({"goals": [{"suite": "signs", "reward": "ocr", "margin": float("inf")}]}, ["goals.0.margin"]),
    "margin in words": ({"goals": [{"suite": "signs", "reward": "ocr", "margin": "few"}]}, ["goals.0.margin"]),
    "goal without a reward": ({"goals": [{"suite": "signs"}]}, ["goals.0.reward"]),
    "misspelt goals": ({"gaols": []}, ["unknown key 'gaols'", "did you mean 'goals'?"]),
    "two arms that are one": (
        {"arms": [arm(), arm("b", weights={"ocr": 1, "guard": 0})]},
        ["arm 'b' does what arm 'a' does"],
    ),
    "an arm that states what the base has": (
        {"arms": [arm(), arm("b", overrides={"rollout.curriculum": None})]},
        ["arm 'b' does what arm 'a' does"],
    ),
    "a section and a key of it": (
        {"arms": [arm(overrides={"rollout.curriculum": {}, "rollout.curriculum.memory": 0.2})]},
        ["arm 'a': overrides: 'rollout.curriculum' and 'rollout.curriculum.memory' say it twice"],
    ),
    "a key in both forms": (
        {"arms": [arm(overrides={"trainer.beta": 0.1, "trainer": {"beta": 0.2}})]},
        ["arm 'a': overrides: 'trainer.beta' is said twice"],
    ),
    "unknown section without keys": ({"arms": [arm(overrides={"nonsense": {}})]}, ["arm 'a'", "'nonsense'"]),
    "repeated seed": ({"seeds": [1, 1]}, ["seeds: 1 is used twice"]),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes(study_files, name):
    changes, parts = MISTAKES[name]
    line = error_line(study_files.study(**changes))
    assert all(part in line for part in parts), line


def test_an_arm_whose_rewards_apply_to_no_training_prompt(study_files):
    signs = str(study_files.folder / "signs.jsonl")
    mistake = arm(weights={"geneval": 1}, overrides={"prompts.train": signs})
    assert "arm 'a': no training prompt has a reward" in error_line(study_files.study(arms=[mistake]))


def test_a_folder_of_another_study_is_left_alone(study_files, tmp_path):
    first = {"study_dir": str(tmp_path / "s"), "arms": [arm()], "seeds": [0]}
    plan_study(load_study_config(study_files.study(**first)))
    kept = (tmp_path / "s/study.yaml").read_text()
    suites = [{"name": name, "prompts": f"{name}.jsonl"} for name in ("signs", "shapes")]
    for change, part in (
        ({"arms": [arm(weights={"ocr": 2})]}, "arm 'a'"),
        ({"seeds": [3]}, "seed 0"),
        ({"overrides": {"trainer.max_steps": 3}}, "base trainer.max_steps"),
        ({"suites": [{**suites[0], "num_prompts": 9}, suites[1]]}, "suites"),
    ):
        line = error_line(study_files.study(**{**first, **change}))
        assert "another study" in line and part in line
    mistake = study_files.study(**{**first, "arms": [arm(weights={"ocrr": 1})]})
    assert "unknown reward 'ocrr'" in error_line(mistake)  # and not that the folder's arm was another
    assert (tmp_path / "s/study.yaml").read_text() == kept
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.yaml").write_text("")
    assert "no study" in error_line(study_files.study(study_dir=str(tmp_path / "run")))


def test_overrides_hold_for_every_trial_and_the_studys_own_keys_for_the_study(study_files, tmp_path, monkeypatch):
    """Those of the file stay where they are not replaced; a path is one of the working folder, a hub name is none."""
    monkeypatch.chdir(tmp_path)
    path = study_files.study(overrides={"trainer": {"max_steps": 9, "learning_rate": 1e-3}})
    study = load_study_config(
        path, ["trainer.max_steps=7", "rollout.decoder={}", "study_dir=s", "seeds=[4]", "trials.concurrency=2"]
    )
    assert study.study_dir == str(tmp_path / "s") and (study.seeds, study.trials.concurrency) == ((4,), 2)
    plan = plan_study(study)
    assert {(t.seed, t.config.trainer.max_steps, t.config.trainer.learning_rate) for t in plan.trials} == {(4, 7, 1e-3)}
    named = load_study_config(path, ["policy.path=ORG/NAME"]).overrides
    assert named["policy.path"] == "ORG/NAME"
    assert load_study_config(path, ["prompts.train=x.jsonl"]).overrides["prompts.train"] == str(tmp_path / "x.jsonl")
    assert load_study_config(path, ["trainer.max_steps=7"], smoke=True).overrides["trainer.max_steps"] == 2


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("rewards.0.weight=2", ["'rewards.0.weight'", "each arm decides it by its `weights`"]),
        ("seed=3", ["'seed' cannot be set for all arms", "`seeds`"]),
        ("run_dir=x", ["'run_dir' cannot be set for all arms"]),
        ("prompts.heldout=x.jsonl", ["the study's `suites` decide it"]),
        ("trainer.beta=0.5", ["override 'trainer.beta'", "arm 'both' decides 'trainer.beta' itself"]),
        ("trainer={beta: 0.5}", ["override 'trainer'", "arm 'both' decides"]),
        ("trainer.max_step=3", ["'trainer.max_step'", "did you mean 'max_steps'?"]),
        ("trainer.max_steps", ["expected `section.key=value`"]),
        ("trials.concurency=2", ["'trials.concurency'", "did you mean 'concurrency'?"]),
        ("=3", ["expected `section.key=value`"]),
    ],
)
def test_an_override_of_what_the_study_decides_is_refused_with_the_reason(study_files, override, parts):
    line = error_line(study_files.study(), override)
    assert all(part in line for part in parts), line


def test_a_resumed_study_with_other_overrides_is_refused_with_the_keys_that_differ(study_files):
    path = study_files.study()
    plan_study(load_study_config(path, ["trainer.max_steps=7"]))
    plan_study(load_study_config(path, ["trainer.max_steps=7"]))
    for given, keys in (
        ([], "base trainer.max_steps)"),
        (["trainer.max_steps=8", "rollout.group_size=8"], "base rollout.group_size, base trainer.max_steps)"),
    ):
        line = error_line(path, *given)
        assert "another study (differs in " in line and keys in line


def test_smoke_is_small_and_lives_elsewhere(study_files):
    betas = {"a": 0.1, "b": 0.2, "c": 0.3}
    arms = [arm(name, overrides={"trainer.max_steps": 99, "trainer.beta": beta}) for name, beta in betas.items()]
    path = study_files.study(arms=arms)
    whole, small = load_study_config(path), load_study_config(path, smoke=True)
    assert small.study_dir == f"{whole.study_dir}-smoke"
    plan = plan_study(small)
    assert [trial.name for trial in plan.trials] == ["a/seed-0", "b/seed-0"]
    assert {trial.config.trainer.max_steps for trial in plan.trials} == {2}
    assert plan.trials[0].config.evaluation.num_prompts == 8


def test_a_smoke_studys_few_steps_are_whole_batches_of_any_arm(study_files):
    updates = {"trainer.num_iterations": 4, "trainer.max_steps": 8, "checkpoint.every_steps": 4}
    arms = [arm("a", overrides=updates), arm("b", overrides=updates | {"trainer.beta": 0.1})]
    path = study_files.study(arms=arms)
    assert {trial.config.trainer.num_iterations for trial in plan_study(load_study_config(path)).trials} == {4}
    small = plan_study(load_study_config(path, smoke=True))
    assert {trial.config.trainer.num_iterations for trial in small.trials} == {1}


def test_nested_overrides_are_dotted_keys():
    assert flatten({"trainer": {"beta": 0.1}, "a.b": None}) == {"trainer.beta": 0.1, "a.b": None}
    assert as_overrides({"a.b": "x: y", "c": None}) == ['a.b="x: y"', "c=null"]
    with pytest.raises(ConfigError):
        load_study_config("nowhere.yaml")
