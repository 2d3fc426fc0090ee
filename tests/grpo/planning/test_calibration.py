"""Calibration files: what a benchmark measured becomes a recipe's stage times, and nobody else's measurements do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from blip3o_grpo.cli import app
from blip3o_grpo.configs import ConfigError, load_run_config
from blip3o_grpo.planning.calibration import calibrated_card, calibrated_times
from blip3o_grpo.planning.cards import card_of_device
from blip3o_grpo.planning.costs import computed_times
from blip3o_grpo.planning.plan import make_plan
from blip3o_grpo.planning.times import policy_shape
from blip3o_grpo.policies.blip3o_next.released import write_configs
from scripts.gpu_calibration import LEARN, calibration
from scripts.gpu_stages import Settings

CONFIGS = Path(__file__).parents[3] / "configs"


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """Configs of the released sizes, without weights."""
    folder = tmp_path_factory.mktemp("released")
    write_configs(folder, 1)
    return folder


def recipe(released, *overrides):
    return load_run_config(CONFIGS / "blip3o_next_ocr.yaml", [f"policy.path={released}", *overrides])


def report(device="NVIDIA H200"):
    """Of a benchmark: sampling takes 2 s a call and 0.01 s an image, decoding 0.5 s once and 0.02 s a step."""

    def row(batch, seconds):
        return {"batch": batch, "seconds": seconds}

    return {
        "device": device,
        "stages": {
            "sample": {"ours": row(256, 2 + 2.56), "ours, one chunk": row(64, 2 + 0.64)},
            "prefill": {"ours: larger batch": row(32, 32 * 0.1)},
            "decode": {
                "ours, 30 steps": row(32, 32 * 1.1),
                "ours, 15 steps": row(32, 32 * 0.8),
                "compiled, 30 steps": row(32, 32 * 0.8),
                "compiled, 15 steps": row(32, 32 * 0.65),
            },
            LEARN: {"ours": row(8, 8 * 0.2)},
        },
    }


@pytest.fixture
def write(released, tmp_path):
    """Writes a calibration file, as the benchmark does, with changes."""

    def file(device="NVIDIA H200", dry=False, **changes):
        made = calibration(report(device), Settings(), policy_shape(released), dry, "2026-11-29", "bench --json x")
        path = tmp_path / "calibration.json"
        path.write_text(json.dumps(made | changes))
        return path

    return file


def test_a_recipe_s_times_are_put_together_from_what_was_measured(released, write):
    """Chunks of 64, 30 steps; a forward, a reference's, a backward pass and checkpointing are 5 quarters of the
    measured 4 passes."""
    config, file = recipe(released), write()
    times = calibrated_times(config, released, file)
    assert times.sample == pytest.approx(2 / 64 + 0.01) and times.sample_call == pytest.approx(2)
    assert times.decode_per_step == pytest.approx(0.02)
    assert times.decode_once == pytest.approx(0.1 + 0.5)
    assert times.train == pytest.approx(0.2 / 4 * 5)
    assert times.score == computed_times(config, released, "h200").score and times.computed == ("score",)
    assert times.source.startswith("measured on NVIDIA H200, 2026-11-29, by `bench --json x` (torch ")
    plain = recipe(released, "trainer.gradient_checkpointing=false", "trainer.beta=0")
    assert calibrated_times(plain, released, file).train == pytest.approx(0.2 / 4 * 3)
    half = calibrated_times(recipe(released, "rollout.guidance_interval=[0,0.5]"), released, file)
    assert 0.02 * 0.56 < half.decode_per_step < 0.02 * 0.67  # the scheduler's shift leaves 7 of 30 steps two branches
    compiled = calibrated_times(recipe(released, "rollout.decoder.compile=true"), released, file)
    assert (compiled.decode_per_step, compiled.decode_once) == (pytest.approx(0.01), pytest.approx(0.1 + 0.5))


def test_the_command_says_which_times_were_measured(released, write):
    config, file = recipe(released), write()
    plan = make_plan(config, calibration=file, tune=8)
    assert plan["computed"] == ["score"] and plan["source"].startswith("measured on NVIDIA H200")
    assert plan["proposals"]
    arguments = ["plan", str(CONFIGS / "blip3o_next_ocr.yaml"), f"policy.path={released}", "--calibration", str(file)]
    told = origins([*arguments, "--card", "h200"])
    assert {told[stage] for stage in ("sample", "decode", "train")} == {"measured"}
    assert told["score"] == "computed" and told["step at best"] == "measured; score computed"
    only_card = origins([*arguments[:3], "--card", "h200"])
    assert {only_card[stage] for stage in ("sample", "decode", "score", "train", "step at best")} == {"computed"}


def origins(arguments):
    """Last column of the command's tables by their first."""
    shown = CliRunner(env={"COLUMNS": "200"}).invoke(app, arguments)
    assert shown.exit_code == 0, shown.output
    rows = [line.split("│") for line in shown.output.splitlines() if line.startswith("│")]
    return {cells[1].strip(): cells[-2].strip() for cells in rows}


@pytest.mark.parametrize(
    ("changes", "card", "message"),
    [
        ({}, "h100", "measured on h200 (NVIDIA H200), and --card is h100"),
        ({"device": "NVIDIA H100 80GB HBM3"}, "h200", "measured on h100 (NVIDIA H100 80GB HBM3), and --card is h200"),
        ({"device": "cpu", "dry": True}, None, "measured in a dry run on cpu, which says nothing of any card"),
        ({"device": "Tesla T4"}, "h200", "measured on a card that is not known here on Tesla T4"),
        ({"policy": {}}, "h200", "its policy is {}, this run's is {'layers': 28"),
        ({"seconds": {}}, "h200", "'seconds.sample_call'"),
        ({"format": 2}, "h200", "'format'"),
    ],
)
def test_what_is_not_this_card_s_is_one_line(released, write, changes, card, message):
    changed = {key: changes[key] for key in changes if key not in ("device", "dry")}
    file = write(**{key: changes[key] for key in ("device", "dry") if key in changes}, **changed)
    arguments = ["plan", str(CONFIGS / "blip3o_next_ocr.yaml"), f"policy.path={released}", "--calibration", str(file)]
    refused = CliRunner(env={"COLUMNS": "400"}).invoke(app, [*arguments, *(["--card", card] if card else [])])
    assert refused.exit_code == 2, refused.output
    line = refused.output.strip()
    assert line.count("\n") == 0 and message in line and str(file) in line


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"hidden_states": 0}, "hidden_states"),
        ({"sample": 0, "sample_call": 0}, "sample"),
        ({"decode": {"eager": {"step": 0, "once": 1}}}, "decode.eager.step"),
    ],
)
def test_a_stage_that_takes_no_time_is_refused(write, changes, key):
    """Lost in the noise of a measurement; divided by, it would be a crash."""
    file = write()
    made = json.loads(file.read_text())
    file.write_text(json.dumps(made | {"seconds": made["seconds"] | changes}))
    with pytest.raises(ConfigError, match=rf"calibration.json: seconds\.{key} is 0, which no stage takes"):
        calibrated_card(file)


def test_the_head_s_learning_was_not_measured(released, write):
    config = recipe(released, "learn=[tokens,head]", "rollout.group_size=4", "rollout.noises_per_completion=4")
    with pytest.raises(ConfigError, match=r"the update of the diffusion head was not measured \(learn: tokens, head\)"):
        calibrated_times(config, released, write())


def test_other_policies_and_ways_are_refused(released, write, tmp_path):
    other = policy_shape(released) | {"layers": 2}
    with pytest.raises(ConfigError, match="its policy is .*'layers': 2.*, this run's is"):
        calibrated_times(recipe(released), released, write(policy=other))
    with pytest.raises(ConfigError, match="its dtype is float32, this run's is bfloat16"):
        calibrated_times(recipe(released), released, write(dtype="float32"))
    without = report()
    for steps in (30, 15):
        del without["stages"]["decode"][f"compiled, {steps} steps"]
    made = calibration(without, Settings(), policy_shape(released), False, "2026-11-29", "bench")
    (tmp_path / "eager.json").write_text(json.dumps(made))
    with pytest.raises(ConfigError, match="decoding was not measured compiled, and rollout.decoder.compile is true"):
        calibrated_times(recipe(released, "rollout.decoder.compile=true"), released, tmp_path / "eager.json")
    with pytest.raises(ConfigError, match="nothing.json: cannot be read"):
        calibrated_card(tmp_path / "nothing.json")
    (tmp_path / "list.json").write_text("[1]")
    with pytest.raises(ConfigError, match="no calibration of scripts/bench_gpu.py: holds a list"):
        calibrated_card(tmp_path / "list.json")
    with pytest.raises(ConfigError, match="--measured and --calibration both give times"):
        make_plan(recipe(released), measured=tmp_path, calibration=write())


@pytest.mark.parametrize(
    ("device", "name"),
    [
        ("NVIDIA H200", "h200"),
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA A100-SXM4-80GB", "a100"),
        ("NVIDIA GH200 480GB", None),
        ("cpu", None),
    ],
)
def test_cards_are_known_by_the_name_that_pytorch_gives_them(device, name):
    assert card_of_device(device) == name
