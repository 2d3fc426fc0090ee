"""`eval`: where its settings and prompts come from, its mistakes in one line, and one whole comparison."""

import json
import re
import shutil
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import blip3o_grpo.cluster
from blip3o_grpo.cli import app
from blip3o_grpo.configs import dump_config
from blip3o_grpo.evaluation import suites
from blip3o_grpo.evaluation.suites import suite_config, suite_prompts, suite_reward
from blip3o_grpo.policies import BLIP3oNext
from blip3o_grpo.rewards.suites import find_suite
from blip3o_grpo.rollout import Completion, Rollout, RolloutGroup
from tests.grpo.geneval_groups import check_official_summary

PROMPTS = Path(__file__).parents[3] / "configs/prompts"


def test_settings_come_from_the_run_its_comparison_the_recipe_or_the_suite(make_config, tmp_path, policy_path):
    options = {"detector": "shapes", "threshold": 0.5}
    trained = {"name": "parts", "type": "geneval", "options": options, "replicas": 2, "on_error": "skip"}
    run = tmp_path / "run"
    shutil.copytree(policy_path, run / "policy")
    (run / "config.yaml").write_text(dump_config(make_config(seed=7, rewards=[trained], run_dir=str(run))))
    for policies in ((str(run), "tiny"), ("tiny", str(run))):
        config = suite_config("geneval", policies, None, None, [])
        assert config.seed == 7
        (reward,) = config.rewards
        assert (reward.name, reward.type, reward.replicas, reward.on_error) == ("geneval", None, 2, "stop")
        assert reward.options == {**options, "score": "strict"}
    assert suite_config("geneval", ("tiny",), None, None, []).rewards[0].options["detector"] == "shapes"
    assert suite_config("ocr", ("tiny",), str(run / "config.yaml"), None, ["seed=8"]).seed == 8


@pytest.mark.parametrize("detector", ["mmdet", "transformers", None])
def test_the_official_detector_is_judged_with_the_official_thresholds(make_config, detector):
    """Whatever a recipe trains with, whether it names the detector or not."""
    options = {"threshold": 0.5, "counting_threshold": 0.4, "detector_options": {"folder": "a"}}
    options |= {"detector": detector} if detector else {}
    config = make_config(rewards=[{"name": "parts", "type": "geneval", "options": options}])
    section = suite_reward(find_suite("geneval"), config)
    kept = {name: value for name, value in options.items() if "threshold" not in name}
    assert section.options == {**kept, "score": "strict"}


def test_a_given_prompt_file_counts_whole_unless_told_otherwise():
    file = PROMPTS / "tiny_geneval_heldout.jsonl"
    size = len(file.read_text().splitlines())
    every = suite_config("geneval", ("tiny",), None, file, [])
    assert len(suite_prompts("geneval", every, whole_file=True)) == every.evaluation.num_prompts == size
    few = suite_config("geneval", ("tiny",), None, file, ["evaluation.num_prompts=5"])
    assert len(suite_prompts("geneval", few, whole_file=True)) == size and few.evaluation.num_prompts == 5


def test_of_a_mixed_heldout_file_each_suite_takes_its_own_prompts():
    recipe = str(PROMPTS.parent / "tiny_mixed.yaml")
    for suite in ("geneval", "ocr"):
        config = suite_config(suite, ("tiny",), recipe, None, [])
        assert len(suite_prompts(suite, config, whole_file=False)) == 128 > config.evaluation.num_prompts == 104


@pytest.fixture
def measured(monkeypatch):
    """Ids of the prompts that were measured; nothing is drawn, every image counts as right."""
    asked = []

    def measure(config, path, prompts, **_):
        assert config.evaluation.num_prompts == len(prompts)
        asked.append([prompt.id for prompt in prompts])
        image = Rollout(Completion(np.zeros(2, np.int32), np.zeros(2, np.float32), 0, 0), None, {"geneval": 1.0})
        return [RolloutGroup(prompt, [], (image,)) for prompt in prompts]

    monkeypatch.setattr(suites, "measure", measure)
    monkeypatch.setattr(suites, "check_model", lambda path: None)
    monkeypatch.setattr(blip3o_grpo.cluster, "ray_cluster", lambda config: nullcontext())
    return asked


def test_a_limit_draws_from_the_whole_file_by_its_seed_and_says_so(measured):
    def said(*args):
        result = CliRunner().invoke(app, ["eval", "tiny", "--suite", "geneval", *args])
        assert result.exit_code == 0, result.output + repr(result.exception)
        return " ".join(result.stdout.split())

    few = ["--set", "evaluation.num_prompts=3"]  # less than is drawn
    assert "SUBSET: 5 of 192 prompts, drawn with seed 0." in said("--limit", "5", *few)
    said("--limit", "5")
    assert "drawn with seed 1" in said("--limit", "5", "--limit-seed", "1")
    assert "SUBSET: the first 5 of 192 prompts." in said("--num-prompts", "5")
    whole = said("--limit", "192", *few)
    assert "geneval: 192 prompts" in whole and "SUBSET" not in whole
    drawn, again, other, first, every = measured
    assert drawn == again != other and len(drawn) == len(other) == 5
    assert first == every[:5] != drawn and len(every) == 192
    values = json.loads(
        CliRunner().invoke(app, ["eval", "tiny", "--suite", "geneval", "--limit", "5", "--json"]).stdout
    )
    assert (values["subset"], values["available_prompts"]) == ({"limit": 5, "seed": 0}, 192)


@pytest.fixture
def nothing_loads(monkeypatch):
    """Any attempt to load weights or to start Ray fails the test."""

    def refuse(*_, **__):
        pytest.fail("a model was loaded or Ray was started before the input was checked")

    monkeypatch.setattr(BLIP3oNext, "from_pretrained", refuse)
    monkeypatch.setattr(blip3o_grpo.cluster.ray, "init", refuse)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--compare", "nowhere"], "nowhere"),
        (["--results", "out.csv"], "written as .jsonl, not '.csv'"),
        (["--suite", "ocr", "--results", "out.jsonl"], "suite 'ocr' has none"),
        (["--out", "grid.txt"], "written as .png, not '.txt'"),
        (["--prompts", "signs.txt"], r"cannot score 1 of 1 prompts, the first is 'a sign.*a GenEval record"),
        (["--prompts", "mixed.jsonl"], r"cannot score 1 of 2 prompts, the first is 'a sign"),
        (["--prompts", "dogs.jsonl"], r"dogs.jsonl: 'a photo of a dog': .*unknown class 'dog'"),
        (["--prompts", "mixed.jsonl", "--results", "mixed.jsonl"], "cannot score|does not hold"),
        (["--config", "nothing.yaml"], "nothing.yaml: no such file"),
        (["--set", "rewards.0.options.detector=transformers"], "missing a required argument: 'folder'"),
        (["--set", "rewards.0.options.detectr=ssd"], "did you mean 'detector'"),
    ],
)
def test_mistakes_are_told_before_anything_loads(nothing_loads, tmp_path, monkeypatch, args, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "signs.txt").write_text("a sign that says nothing\n")
    star = '{"prompt": "a photo of a star", "tag": "single_object", "include": [{"class": "star", "count": 1}]}\n'
    (tmp_path / "mixed.jsonl").write_text(star + '{"prompt": "a sign"}\n')
    (tmp_path / "dogs.jsonl").write_text(star.replace("star", "dog"))
    result = CliRunner().invoke(app, ["eval", "tiny", "--suite", "geneval", *args])
    assert result.exit_code == 2, result.output + repr(result.exception)
    assert re.search(message, result.stderr), result.stderr


def test_a_policy_compared_with_itself_end_to_end(tmp_path, monkeypatch):
    """The shipped policy, its real sampler, decoder and reward, in one cluster for both: exactly no difference."""
    monkeypatch.chdir(tmp_path)
    prompts = [line for line in (PROMPTS / "tiny_geneval_heldout.jsonl").read_text().splitlines() if "single_o" in line]
    counting = next(p for p in (PROMPTS / "tiny_geneval_heldout.jsonl").read_text().splitlines() if "exclude" in p)
    Path("prompts.jsonl").write_text("\n".join([*prompts[:2], counting]) + "\n")
    args = ["--suite", "geneval", "--compare", "tiny", "--prompts", "prompts.jsonl", "--images", "2", "--json"]
    few = ["--set", "cluster.samplers=1", "--set", "cluster.decoders=1"]
    result = CliRunner().invoke(app, ["eval", "tiny", *args, *few, "--results", "r.jsonl", "--out", "grid.png"])
    assert result.exit_code == 0, result.output + repr(result.exception)
    values = json.loads(result.stdout)
    assert (values["num_prompts"], values["images_per_prompt"]) == (3, 2)
    assert set(values["difference"]["means"].values()) == {0.0}
    assert set(values["difference"]["intervals"].values()) == {None}  # of three prompts there is none
    assert values["difference"]["estimates"]["geneval"] == {"mean": 0.0, "low": None, "high": None, "n": 3}
    assert values["means"]["geneval"] > 0
    for policy, name in ((values, "r"), (values["compare"], "r-other")):
        check_official_summary(Path(f"{name}.jsonl"), policy)
    assert Path("r.jsonl").read_text().replace('"r/', '"r-other/') == Path("r-other.jsonl").read_text()
    pictures = [path.read_bytes() for path in sorted(Path().glob("r*/00000/samples/0001.png"))]
    assert len(pictures) == 2 and pictures[0] == pictures[1]
    assert Path("grid.png").read_bytes() == Path("grid-other.png").read_bytes()
