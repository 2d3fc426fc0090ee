"""`steps`: which numbers are compared, what the correlations say, and one whole comparison through the pipeline."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import blip3o_grpo.cluster
from blip3o_grpo.cli import app
from blip3o_grpo.configs import ConfigError
from blip3o_grpo.evaluation.diffusion_steps import agreement, summarise_steps, ways_to_paint
from blip3o_grpo.rollout import Completion, Prompt, Rollout, RolloutBatch, RolloutGroup
from blip3o_grpo.rollout.messages import Denoising

GENERATOR = np.random.default_rng(0)
MOST = GENERATOR.random((12, 8))


def batch(scores: np.ndarray, names: str, decode: float) -> RolloutBatch:
    completion = Completion(np.zeros(1, np.int32), np.zeros(1, np.float32), 0, 0)
    image = np.zeros((1, 1, 3), np.uint8)
    groups = tuple(
        RolloutGroup(
            Prompt(name, name),
            [0],
            tuple(Rollout(completion, image, {"ocr": None if np.isnan(s) else float(s), "tags": None}) for s in row),
        )
        for name, row in zip(names, scores, strict=True)
    )
    return RolloutBatch(groups, {"sample": 1.0, "decode": decode, "score": 1.0, "wall": 1.0})


def test_a_monotone_change_of_scores_is_full_agreement():
    """What fewer steps do to the level or the scale of a reward does not matter to GRPO's order."""
    found = agreement(0.5 * MOST**2, MOST)
    assert (found.within.mean, found.within.high) == pytest.approx((1, 1))
    assert found.within.low == pytest.approx(2 * 0.05 ** (1 / 12) - 1)  # twelve prompts do not prove it of all
    assert (found.overall.mean, found.overall.low, found.overall.high) == pytest.approx((1, 1, 1))
    assert (found.num_groups, found.same_order.mean, found.spread_lost.mean) == (12, 1, 0)


def test_a_shift_per_prompt_lowers_the_overall_correlation_only():
    found = agreement(MOST + 2 * GENERATOR.permutation(12)[:, None], MOST)
    assert found.within.mean == pytest.approx(1)
    assert found.overall.mean < 0.5


def test_unrelated_scores_have_an_interval_around_zero():
    found = agreement(GENERATOR.random(MOST.shape), MOST)
    mean, low, high = found.within.mean, found.within.low, found.within.high
    assert low < mean < high and low < 0.1 and high > -0.1 and high - low < 0.8
    assert low < 0 < high or abs(mean) < 0.3


def test_difficulty_of_prompts_shows_overall_and_not_within_groups():
    """Prompts differ, members are shuffled: a large number over all images, and nothing that GRPO could use."""
    level = np.arange(12.0)[:, None]
    found = agreement(level + GENERATOR.random(MOST.shape), level + MOST)
    assert found.overall.mean > 0.9 and found.within.mean < 0.4


def test_groups_that_lose_their_spread_are_counted_and_correlate_with_nothing():
    fewer, most = MOST.copy(), MOST.copy()
    fewer[:3] = 0.5
    most[11] = 1.0
    found = agreement(fewer, most)
    assert found.num_groups == 8 and found.spread_lost.mean == pytest.approx(3 / 11) and found.spread_lost.n == 11
    nothing = agreement(np.zeros_like(MOST), MOST)
    assert nothing.within is None and nothing.overall is None and nothing.spread_lost.mean == 1


def test_summary_leaves_out_groups_that_one_batch_lacks_and_rewards_without_scores():
    scores = {4: MOST[:3], 30: MOST[:4] / 2}
    scores[4][0, 0] = np.nan
    few, many = Denoising(4, (0.0, 1.0)), Denoising(30, (0.0, 1.0))
    result = summarise_steps(
        {few: batch(scores[4], "abc", 4.8), many: batch(scores[30], "abcd", 32.0)}, ["ocr", "tags"]
    )
    assert (result.num_prompts, result.images_per_prompt) == (3, 8)
    few, most = result.rows
    assert (few.reward, few.num_steps, most.num_steps) == ("ocr", 4, 30)
    assert few.agreement.within.mean == pytest.approx(1) and most.agreement is None
    assert (few.agreement.within.low, few.agreement.within.n) == (None, 3)  # of three prompts there is no interval
    assert few.mean.mean == pytest.approx(np.nanmean(scores[4], axis=1).mean()) and few.mean.n == 3
    assert most.mean.mean == pytest.approx(scores[30][:3].mean())
    assert few.decode_seconds == pytest.approx(0.2) and most.decode_seconds == pytest.approx(1.0)
    assert json.loads(json.dumps(result.to_dict()))["rows"][0]["reward"] == "ocr"


def test_steps_come_from_the_user_or_from_rollouts_and_evaluations(make_config):
    config = make_config(rollout={"num_diffusion_steps": 4}, evaluation={"num_diffusion_steps": 30})
    assert [way.num_steps for way in ways_to_paint(None, None, config)] == [4, 30]
    assert [way.num_steps for way in ways_to_paint([30, 8, 4, 8], None, config)] == [4, 8, 30]
    with pytest.raises(ConfigError, match="at least two different numbers, such as --steps 4,30"):
        ways_to_paint(None, None, make_config(rollout={"num_diffusion_steps": 4}))
    with pytest.raises(ConfigError, match="0 diffusion steps decode nothing"):
        ways_to_paint([0, 4], None, config)


def test_an_interval_of_guidance_is_compared_with_the_most_steps_under_the_settings_own(make_config):
    config = make_config(rollout={"num_diffusion_steps": 4})
    half, whole = (0.5, 1.0), (0.0, 1.0)
    assert ways_to_paint([8, 4], half, config) == [Denoising(4, half), Denoising(8, half), Denoising(8, whole)]
    assert ways_to_paint(None, half, config) == [Denoising(4, half), Denoising(4, whole)]
    for interval, message in (
        ((0.5, 0.5), "0 <= LOW < HIGH <= 1"),
        ((0, 2), "0 <= LOW"),
        (whole, "nothing to compare"),
    ):
        with pytest.raises(ConfigError, match=message):
            ways_to_paint([4], interval, config)
    with pytest.raises(ConfigError, match="there is no guidance"):
        ways_to_paint([4], half, make_config(rollout={"guidance_scale": 1}))


def test_mistakes_are_one_line(tmp_path):
    def error(*arguments: str) -> str:
        result = CliRunner().invoke(app, ["steps", *arguments])
        assert result.exit_code == 2, result.output
        return " ".join(result.output.split())

    assert "expected whole numbers with commas" in error("tiny", "--steps", "4;8")
    assert "nothing to compare" in error("tiny", "--steps", "4")
    for interval in ("0.5", "a,b", "0,0.5,1"):
        assert "expected LOW,HIGH, such as 0.3,1" in error("tiny", "--guidance-interval", interval)
    assert "no such file" in error("tiny", "--config", str(tmp_path / "none.yaml"), "--steps", "4,8")
    assert "no such folder" in error(str(tmp_path / "none"), "--steps", "4,8")


@pytest.mark.slow
def test_the_tiny_policy_end_to_end(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "local")
    prompts = Path(tmp_path / "prompts.txt")
    prompts.write_text('a red sign that says "TAXI"\na blue sign that says "CAFE"\n', encoding="utf-8")
    options = [
        "--steps",
        "1,4",
        "--guidance-interval",
        "0.6,1",
        "--images",
        "3",
        "--prompts",
        str(prompts),
        "--json",
        "--set",
        f"run_dir={tmp_path}",
    ]
    result = CliRunner().invoke(app, ["steps", "tiny", *options])
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout.splitlines()[-1])
    assert (report["num_prompts"], report["images_per_prompt"]) == (2, 3)
    assert [row["num_steps"] for row in report["rows"] if row["reward"] == "ocr"] == [1, 4, 4]
    assert [row["guidance_interval"] for row in report["rows"][:3]] == [[0.6, 1], [0.6, 1], [0, 1]]
    assert blip3o_grpo.cluster.ray.is_initialized() is False
