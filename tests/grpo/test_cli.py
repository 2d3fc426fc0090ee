"""The command line: help, and one clear line with exit code 2 for every bad input, before anything loads or starts."""

import json
import shutil

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

import blip3o_grpo.cluster
from blip3o_grpo.cli import app
from blip3o_grpo.configs import dump_config
from blip3o_grpo.policies import BLIP3oNext

COMMANDS = ["train", "warmstart", "sample", "eval", "doctor", "report", "prompts", "ablate", "rescore", "steps"]


@pytest.fixture
def nothing_loads(monkeypatch):
    """Any attempt to load weights or to start Ray fails the test."""

    def refuse(*_, **__):
        pytest.fail("a model was loaded or Ray was started before the input was checked")

    monkeypatch.setattr(BLIP3oNext, "from_pretrained", refuse)
    monkeypatch.setattr(blip3o_grpo.cluster.ray, "init", refuse)


@pytest.fixture
def recipe(make_config, tmp_path):
    """A valid recipe with an OCR reward only, in a file that a test may spoil."""

    def write(**changes):
        values = yaml.safe_load(dump_config(make_config(rewards=[{"name": "ocr"}])))
        for name, section in changes.items():
            values[name] = {**values[name], **section} if isinstance(section, dict) else section
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(values))
        return str(path)

    return write


@pytest.fixture
def checkpoint(policy_path, tmp_path):
    return shutil.copytree(policy_path, tmp_path / "checkpoint")


def error_line(*args):
    result = CliRunner().invoke(app, [str(arg) for arg in args])
    assert result.exit_code == 2, result.output + repr(result.exception)
    lines = [line for line in result.stderr.strip().splitlines() if line]
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error: ")
    return lines[0]


def test_help_names_every_command_and_every_command_has_help():
    text = CliRunner().invoke(app, ["--help"]).output
    for command in COMMANDS:
        assert command in text
        assert CliRunner().invoke(app, [command, "--help"]).exit_code == 0


def test_configuration_mistakes(nothing_loads, recipe, tmp_path):
    assert "did you mean 'learning_rate'?" in error_line("train", recipe(), "trainer.learning_rte=1")
    assert "'rollout.group_size' is 1" in error_line("train", recipe(), "rollout.group_size=1")
    assert "micro_batch_size=3 does not divide" in error_line("train", recipe(), "trainer.micro_batch_size=3")
    assert "no such file" in error_line("train", tmp_path / "nothing.yaml")
    assert "nothing.yaml: no such file" in error_line("warmstart", tmp_path / "nothing.yaml")
    assert "known suites: dpg, geneval, longtext, ocr" in error_line("eval", "tiny", "--suite", "sight")


def test_reward_mistakes(nothing_loads, recipe):
    assert "did you mean 'ocr'?" in error_line("train", recipe(), "rewards.0.name=ocrr")
    assert "did you mean 'variant'?" in error_line("train", recipe(), "rewards.0.options.varient=exact")
    assert "importing 'no_such_module' failed" in error_line("train", recipe(), "rewards.0.type=no_such_module:R")


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (b"", ["the file holds no prompts"]),
        (b'{"prompt": "caf\xe9"}\n', [":1", "UTF-8"]),
        (b'{"prompt": "a red circle"}\n', ["ocr needs", "'a red circle'", "double quotes"]),
        (b'{"text": "x"}\n', [":1", "`prompt` is missing"]),
        (json.dumps({"prompt": 'a sign that says "OK" ' + "very " * 300}).encode(), ["tokens long", "leaves room for"]),
        (b'{"prompt": "a sign that says \\"OK\\""}\n', ["1 prompts cannot fill a step", "prompts_per_step=2"]),
    ],
    ids=["empty", "not-utf8", "no-quoted-text", "no-prompt-key", "too-long", "too-few"],
)  # fmt: skip
def test_prompt_file_mistakes(nothing_loads, recipe, tmp_path, content, parts):
    file = tmp_path / "spoilt.jsonl"
    file.write_bytes(content)
    line = error_line("train", recipe(prompts={"train": str(file)}))
    assert "spoilt.jsonl" in line
    assert all(part in line for part in parts), line


def test_a_prompt_that_no_reward_applies_to_is_told_what_each_needs(nothing_loads, recipe, tmp_path):
    file = tmp_path / "plain.jsonl"
    file.write_text('{"prompt": "a red circle"}\n')
    rewards = [{"name": "shapes", "type": "geneval", "options": {"detector": "shapes", "colors": "nearest"}}]
    line = error_line("train", recipe(prompts={"train": str(file)}, rewards=rewards))
    assert "shapes needs a GenEval record" in line and "double quotes" not in line


def test_checkpoint_mistakes(nothing_loads, recipe, checkpoint, tmp_path):
    assert "no such folder" in error_line("train", recipe(policy={"path": str(tmp_path / "nowhere")}))
    changed = recipe(policy={"path": str(checkpoint)})

    weights = load_file(checkpoint / "model.safetensors")
    save_file({**weights, "lm_head.weight": torch.zeros(3, 4)}, checkpoint / "model.safetensors")
    assert "wrong shape: lm_head.weight (3, 4) instead of" in error_line("train", changed)
    save_file({k: v for k, v in weights.items() if k != "model.norm.weight"}, checkpoint / "model.safetensors")
    assert "missing: model.norm.weight" in error_line("train", changed)
    (checkpoint / "model.safetensors").write_bytes(b"cut off")
    assert "not a complete safetensors file" in error_line("train", changed)
    (checkpoint / "model.safetensors").unlink()
    assert "model.safetensors" in error_line("train", changed)

    values = json.loads((checkpoint / "config.json").read_text())
    del values["num_image_tokens"]
    (checkpoint / "config.json").write_text(json.dumps(values))
    assert "missing key 'num_image_tokens'" in error_line("train", changed)


def test_a_run_folder_of_another_configuration_is_left_alone(nothing_loads, recipe, make_config):
    config = make_config(rewards=[{"name": "ocr"}])
    from blip3o_grpo.run.folder import RunFolder
    from blip3o_grpo.run.manifest import write_manifest

    folder = RunFolder(config.run_dir)
    folder.prepare(config)
    (folder.checkpoints / "checkpoint-2").mkdir()
    write_manifest(folder.checkpoints / "checkpoint-2", 2)
    line = error_line("train", recipe(run_dir=config.run_dir), "trainer.beta=0.5", "rollout.temperature=0.9")
    assert "differs in rollout.temperature, trainer.beta" in line
    assert folder.newest_step() == 2


def test_sample_writes_a_grid(policy_path, tmp_path):
    out = tmp_path / "pictures/grid.png"
    args = ["sample", 'a red sign that says "TAXI"', "--policy", str(policy_path), "--images", "2", "--steps", "2"]
    result = CliRunner().invoke(app, [*args, "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert out.stat().st_size > 1000
