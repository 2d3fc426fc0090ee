"""What a reward or a suite declares about itself is what evaluations show, whoever wrote it."""

import numpy as np
import pytest
from rich.console import Console

import blip3o_grpo.evaluation.suites as suites_module
import blip3o_grpo.evaluation.tables as tables_module
from blip3o_grpo.configs import ConfigError, RewardSection
from blip3o_grpo.evaluation.heldout import summarise
from blip3o_grpo.evaluation.suites import SuiteResult, suite_config
from blip3o_grpo.evaluation.tables import suite_tables
from blip3o_grpo.rewards.suites import PublishedRow, Suite, available_suites, find_suite
from blip3o_grpo.rollout import Completion, Prompt, Rollout, RolloutGroup

PLUG_IN = """
from blip3o_grpo.rewards import RewardBase, TagTable


class Levels(RewardBase):
    tags = TagTable({"easy": "Easy ones", "hard": "Hard ones"}, key="level")

    def __call__(self, batch):
        return [0.5] * len(batch)
"""


@pytest.fixture
def reward(tmp_path):
    (tmp_path / "levels_reward.py").write_text(PLUG_IN)
    return RewardSection(name="levels", type="levels_reward:Levels", folder=str(tmp_path))


@pytest.fixture
def groups():
    completion, image = Completion(np.zeros(4, np.int32), np.zeros(4, np.float32), 0, 0), np.zeros((4, 4, 3), np.uint8)
    levels = {"a": "hard", "b": "easy", "c": "easy", "d": "odd", "e": None}
    return [
        RolloutGroup(Prompt(name, name, {"level": level}), [], (Rollout(completion, image, {"levels": score}),))
        for (name, level), score in zip(levels.items(), (0.0, 1.0, 0.5, 0.2, 0.3), strict=True)
    ]


def test_a_plug_in_is_reported_by_the_tags_it_declares(reward, groups):
    evaluation = summarise(groups, (reward,), step=0)
    assert {tag: values[0] for tag, values in evaluation.tags["levels"].items()} == pytest.approx(
        {"easy": 0.75, "hard": 0.0, "odd": 0.2, "other": 0.3}
    )
    assert list(evaluation.tags["levels"])[:2] == ["easy", "hard"]
    assert evaluation.means["levels/overall"] == pytest.approx((0.75 + 0.0 + 0.2 + 0.3) / 4)


def test_a_plug_ins_suite_gets_a_table_of_its_own(reward, groups, monkeypatch):
    row = PublishedRow("Somebody's", 0.5, {"easy": 0.9}, False, "a paper")
    suite = Suite("levels", "tiny_ocr.yaml", "a level", published=(row,), published_notes=("Not a ranking.",))
    for module in (suites_module, tables_module):
        monkeypatch.setattr(module, "find_suite", lambda name: suite)
    result = SuiteResult("levels", reward, ("tiny",), (summarise(groups, (reward,), 0),), None)
    console = Console(width=100, color_system=None)
    with console.capture() as capture:
        console.print(suite_tables(result))
    text = " ".join(capture.get().split())
    assert (
        "Easy Hard Model ones ones Odd Other Overall" in text
        and "Somebody's .90 – – – .50" in text
        and "Not a ranking." in text
    )
    assert "prompts_with_a_correct_image" not in result.to_dict()


def test_a_reward_that_cannot_be_imported_here_declares_nothing(groups):
    """Its own environment has it."""
    elsewhere = RewardSection(name="levels", type="nowhere:Levels", runtime_env={"py_executable": "python"})
    assert summarise(groups, (elsewhere,), step=0).tags == {}


def test_suites_are_found_by_name():
    assert {"ocr", "geneval"} <= set(available_suites())
    assert find_suite("geneval").options({"detector": "mmdet", "threshold": 0.5}) == {
        "detector": "mmdet",
        "score": "strict",
    }
    with pytest.raises(ConfigError, match="unknown suite 'genevl'; did you mean 'geneval'?"):
        suite_config("genevl", ("tiny",), None, None, [])
