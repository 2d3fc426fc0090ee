"""What a card measures is known, and what is wrong is said, before a model loads."""

import json
import shutil

import pytest
from typer.testing import CliRunner

from blip3o_grpo.card.plan import Request, plan_card, read_margins
from blip3o_grpo.card.rewording import reword
from blip3o_grpo.cli import app
from blip3o_grpo.configs import ConfigError, dump_config
from blip3o_grpo.policies import PromptEncoder
from blip3o_grpo.rollout import Prompt
from blip3o_grpo.run.folder import RunFolder
from blip3o_grpo.run.locks import hold


@pytest.fixture
def run(make_config, policy_path):
    """The folder of a run whose policy is saved."""
    config = make_config(rewards=[{"name": "ocr"}, {"name": "guard", "type": "reference_guard", "weight": 0.3}])
    folder = write(config)
    shutil.copytree(policy_path, folder / "policy")
    return folder


def write(config):
    folder = RunFolder(config.run_dir)
    folder.prepare(config)
    return folder.path


def test_the_runs_prompts_and_their_rewording_are_measured_by_its_rewards(run, policy_path, prompts):
    plan = plan_card(run, Request())
    assert (plan.start, plan.trained) == (policy_path, run / "policy")
    assert [reward.name for reward in plan.config.rewards] == ["ocr", "guard"]
    assert list(plan.sets) == ["heldout", "reworded"] and len(plan.prompts) == 2 * len(prompts)
    assert plan.config.evaluation.num_prompts == len(plan.prompts)
    first, other = plan.prompts[0], plan.prompts[len(prompts)]
    assert other.id == f"{first.id}~reworded" and other.metadata == first.metadata
    assert first.text in other.text and other.text != first.text
    assert any(sentence == "suite ocr: the run's own reward 'ocr' is the same" for sentence in plan.left_out)
    assert any(sentence.startswith("suite dpg: official data and a judge;") for sentence in plan.left_out)
    assert any(sentence.startswith("suite geneval: ") for sentence in plan.left_out)


def test_a_suite_that_the_run_does_not_have_is_a_row_of_its_own(run, make_config):
    own = make_config(run_dir=str(run), rewards=[{"name": "exact", "type": "ocr", "options": {"variant": "exact"}}])
    (run / "config.yaml").write_text(dump_config(own))
    plan = plan_card(run, Request(suites=["ocr"], margins=["0.1", "suite_ocr=0.2"]))
    (exact, suite) = plan.config.rewards
    assert (suite.name, suite.target, suite.weight, suite.options) == ("suite_ocr", "ocr", 0.0, {})
    assert plan.margins == {"exact": 0.1, "suite_ocr": 0.2, "image/diversity": 0.1} and plan.left_out == []
    assert [reward.name for reward in plan_card(run, Request(suites=[])).config.rewards] == ["exact"]


REFUSED = {
    "suite": (Request(suites=["ocrr"]), "unknown suite 'ocrr'; did you mean 'ocr'?"),
    "suite with a judge": (
        Request(suites=["dpg"]),
        "--suites: suite dpg: official data and a judge; measure it",
    ),
    "suite without prompts": (Request(suites=["geneval"]), "--suites: suite geneval: "),
    "margin": (Request(margins=["0"]), "--margin 0: expected a number above 0, such as 0.05"),
    "margin of nothing": (
        Request(margins=["oct=0.1"]),
        "--margin oct=0.1: nothing measures 'oct'; did you mean 'ocr'?",
    ),
    "margin in words": (Request(margins=["ocr=small"]), "--margin ocr=small: expected a number above 0"),
    "another policy": (
        Request(overrides=["policy.path=tiny"]),
        "--set policy.path=tiny: a card is about the run's own",
    ),
    "setting": (Request(overrides=["evaluation.num_prompt=4"]), "did you mean 'num_prompts'?"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_measured_is_refused_with_what_to_write(run, case):
    request, message = REFUSED[case]
    with pytest.raises(ConfigError) as caught:
        plan_card(run, request)
    assert message in str(caught.value)


def test_other_folders_and_runs_at_work_are_refused(run, tmp_path):
    with pytest.raises(ConfigError, match="is not a run folder"):
        plan_card(tmp_path, Request())
    with hold(run / ".lock"), pytest.raises(ConfigError, match="is still at work"):
        plan_card(run, Request())
    shutil.rmtree(run / "policy")
    with pytest.raises(ConfigError, match="has not finished"):
        plan_card(run, Request())


def test_margins_of_one_measure_count_before_that_of_all():
    names = ["ocr", "guard", "image/diversity"]
    assert read_margins([], names) == {"image/diversity": 0.02}
    assert read_margins(["ocr=0.2"], names) == {"image/diversity": 0.02, "ocr": 0.2}
    assert read_margins(["ocr=0.2", "0.1"], names) == {"ocr": 0.2, "guard": 0.1, "image/diversity": 0.1}


def test_rewording_keeps_what_is_asked_for_and_leaves_out_what_does_not_fit(policy_path):
    encoder = PromptEncoder.from_pretrained(policy_path, plain=True)
    fitting = Prompt("a", 'a red sign that says "TAXI"', {"target_text": "TAXI"})
    (found,) = reword([fitting, Prompt("b", "x" * 20_000)], encoder)
    assert found == Prompt("a~reworded", 'please draw a red sign that says "TAXI"', {"target_text": "TAXI"})


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give the folder of a finished run, or --verify CARD"),
        (["--verify", "card.json", "--suites", "ocr"], "--verify measures as the card says; leave --suites"),
        (["--verify", "nothing.json"], "nothing.json: no card;"),
        (["/nope"], "/nope is not a run folder"),
    ],
)
def test_a_mistake_in_the_command_is_one_line(words, message):
    result = CliRunner().invoke(app, ["card", *words])
    assert result.exit_code == 2 and message in " ".join(result.stderr.split())


def test_the_page_cannot_take_the_place_of_something_else(run):
    (run / "card.json").write_text(json.dumps({"mine": 1}))
    result = CliRunner().invoke(app, ["card", str(run)])
    assert result.exit_code == 2 and "that is something else" in " ".join(result.stderr.split())
