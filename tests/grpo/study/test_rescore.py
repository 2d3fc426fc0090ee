"""Re-scoring of recorded images with the real rewards: from names, options, own classes and reward sections."""

import csv
import json

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from blip3o_grpo.cli import app
from blip3o_grpo.configs import RunConfig, dump_config
from blip3o_grpo.rewards import RewardBatch, build_reward
from blip3o_grpo.rollout import Completion, Prompt, Rollout, RolloutBatch, RolloutGroup, RolloutRecorder
from blip3o_grpo.study.rescore import rescore

REWARD = """
class Red:
    def __init__(self, gain=1.0):
        self.gain = gain

    def __call__(self, batch):
        return [self.gain * float(image[..., 0].mean()) / 255 for image in batch.images]
"""
STEPS, GROUP = 2, 4


def build_run(folder, all_images):
    """Two steps of two groups; member k's image is k/4 red, the recorded reward says the opposite."""
    config = RunConfig.model_validate(
        {
            "run_dir": str(folder),
            "prompts": {"train": "t.jsonl", "heldout": "h.jsonl"},
            "rewards": [
                {"name": "old", "type": "reward_of_test:Red", "options": {"gain": 0.5}},
                {"name": "guard", "type": "reference_guard", "options": {"softness": 0.4}},
            ],
        }
    )
    folder.mkdir(exist_ok=True)
    (folder / "config.yaml").write_text(dump_config(config))
    recorder = RolloutRecorder(folder, {"old": 1.0, "guard": 0.0}, all_images=all_images)
    for step in range(STEPS):
        groups = []
        for name in ("p", "q"):
            rollouts = [
                Rollout(
                    Completion(np.zeros(2, np.int32), np.zeros(2, np.float32), step, member),
                    np.full((16, 16, 3), (64 * member, 40 + 5 * step, 90), np.uint8),
                    {"old": 1 - member / 4, "guard": None if name == "q" else 0.5},
                )
                for member in range(GROUP)
            ]
            groups.append(RolloutGroup(Prompt(name, f"a {name}", {"tag": "t"}), [1], tuple(rollouts)))
        recorder.record(step, RolloutBatch(tuple(groups), {}))
    return folder


@pytest.fixture(scope="module", autouse=True)
def plug_in(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plugin")
    (folder / "reward_of_test.py").write_text(REWARD)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield


@pytest.fixture
def run(tmp_path):
    return build_run(tmp_path / "run", all_images=True)


def test_all_images_are_scored_with_options_of_the_run_and_of_a_file(run, tmp_path):
    (tmp_path / "more.yaml").write_text("rewards:\n- {name: triple, type: 'reward_of_test:Red', options: {gain: 3}}\n")
    rescored = rescore(run, ["old", "reward_of_test:Red"], tmp_path / "more.yaml")
    assert list(rescored.scores) == ["old", "red", "triple", "guard"] and rescored.recorded == ("guard",)
    red = np.array([0, 64, 128, 192]) / 255
    assert rescored.all_images and rescored.scores["red"].shape == (4, GROUP)
    for name, factor in (("old", 0.5), ("red", 1), ("triple", 3)):
        np.testing.assert_allclose(rescored.scores[name], np.tile(factor * red, (4, 1)))
    assert np.isnan(rescored.scores["guard"][1]).all() and (rescored.scores["guard"][0] == 0.5).all()
    rewards = {reward.name: reward for reward in rescored.rewards()}
    assert rewards["guard"].without_spread.mean == 1 and rewards["red"].without_spread.mean == 0
    pair = next(pair for pair in rescored.pairs() if (pair.first, pair.second) == ("red", "triple"))
    assert (pair.num_groups, pair.pearson.mean, pair.same_best.mean) == (4, pytest.approx(1), 1)


def test_new_rewards_against_what_training_recorded(run):
    rescored = rescore(run, ["reward_of_test:Red"])
    pair = next(pair for pair in rescored.pairs() if (pair.first, pair.second) == ("red", "old"))
    assert [e.mean for e in (pair.spearman, pair.same_order, pair.same_best)] == pytest.approx([-1, 0, 0])


def test_with_extremes_only_the_two_images_are_scored(tmp_path):
    rescored = rescore(build_run(tmp_path / "run", all_images=False), ["reward_of_test:Red"])
    assert not rescored.all_images
    np.testing.assert_allclose(rescored.scores["red"][0][[0, 3]], [0, 192 / 255])
    assert np.isnan(rescored.scores["red"][0][[1, 2]]).all()
    assert (rescored.scores["old"][0] == [1, 0.75, 0.5, 0.25]).all()  # recorded scores are complete
    pair = rescored.pairs()[0]
    assert pair.pearson is None and pair.same_order.mean == 0


def test_a_guard_remembers_the_starting_policy_of_the_run(run):
    images = [np.full((16, 16, 3), (64 * member, 40, 90), np.uint8) for member in range(GROUP)] * 3
    guard = build_reward("reference_guard", {"softness": 0.4})
    guard.fit_reference(RewardBatch(images, [""] * 12, [{}] * 12))
    torch.save({"guard": guard.state_dict()}, run / "reward_state.pt")
    remembered = rescore(run, ["guard"]).scores["guard"]
    assert remembered[0] == pytest.approx(guard(RewardBatch(images[:GROUP], [""] * GROUP, [{}] * GROUP)))
    (run / "reward_state.pt").unlink()
    assert np.isfinite(rescore(run, ["guard"]).scores["guard"]).all()  # fitted on the first recorded step


def test_the_command_prints_tables_and_writes_json_and_csv(run, tmp_path):
    out = tmp_path / "scores.json"
    args = ["rescore", str(run), "--rewards", "reward_of_test:Red, old", "--out", str(out)]
    result = CliRunner(env={"COLUMNS": "200"}).invoke(app, args)
    assert result.exit_code == 0, result.output
    assert "red and old" in result.output and "guard (recorded)" in result.output
    summary = json.loads(out.read_text())
    assert summary["images"] == "all" and summary["num_groups"] == 4
    assert {pair["first"] for pair in summary["pairs"]} == {"red", "old"}
    rows = list(csv.DictReader(out.with_suffix(".csv").open()))
    assert (
        len(rows) == 4 * GROUP
        and rows[4]["guard"] == ""
        and float(rows[3]["red"]) == pytest.approx(192 / 255, abs=1e-5)
    )


def test_what_no_group_allows_is_a_dash(tmp_path):
    folder = build_run(tmp_path / "run", all_images=False)
    for file in folder.glob("rollouts/*/rollouts.jsonl"):  # as where no trained reward applies: one image is both ends
        records = [json.loads(line) for line in file.read_text().splitlines()]
        lines = [json.dumps({**record, "worst": record["best"]}) + "\n" for record in records]
        file.write_text("".join(lines))
    result = CliRunner().invoke(app, ["rescore", str(folder), "--rewards", "reward_of_test:Red"])
    assert result.exit_code == 0 and "nan" not in result.output and "–" in result.output, result.output


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ([], "no reward to score with"),
        (["--rewards", "ocrr"], "did you mean 'ocr'?"),
        (["--rewards", "old,old"], "asked for twice"),
        (["--rewards", "no_module:X"], "importing 'no_module' failed"),
        (["--config", "broken.yaml"], "not a list of reward sections"),
        (["--config", "nowhere.yaml"], "no such file"),
    ],
)
def test_mistakes(run, tmp_path, args, words):
    (tmp_path / "broken.yaml").write_text("rewards: [{nme: x}]\n")
    result = CliRunner().invoke(app, ["rescore", str(run), *(str(tmp_path / a) if "yaml" in a else a for a in args)])
    assert result.exit_code == 2 and words in result.stderr.replace("\n", " "), result.output + result.stderr


def test_folders_without_anything_to_score(tmp_path, run):
    result = CliRunner().invoke(app, ["rescore", str(tmp_path), "--rewards", "ocr"])
    assert result.exit_code == 2 and "not a run folder" in result.stderr
    (next(run.glob("rollouts/*/*.png"))).write_bytes(b"cut")
    assert "not a readable image" in CliRunner().invoke(app, ["rescore", str(run), "--rewards", "old"]).stderr
    for folder in run.glob("rollouts/*/rollouts.jsonl"):
        folder.unlink()
    assert "no recorded rollouts" in CliRunner().invoke(app, ["rescore", str(run), "--rewards", "old"]).stderr
