"""What files and names tell is told in one line, before any large library is imported; finished runs answer at once."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from blip3o_grpo.cli import app
from blip3o_grpo.configs import load_run_config
from blip3o_grpo.evaluation.heldout import Evaluation
from blip3o_grpo.hints import nearest_key, setting_names
from blip3o_grpo.result import finished_result
from blip3o_grpo.run.folder import RunFolder
from blip3o_grpo.run.manifest import write_manifest

RECIPE = str(Path(__file__).parents[2] / "configs/tiny_ocr.yaml")
LARGE = ("torch", "trl", "vllm", "paddle", "paddleocr", "transformers", "ray", "diffusers")
CPU_SECONDS = 6
"""Far above the second that an answer takes, far below what importing the large libraries takes together."""
PROBE = f"""
import sys
from blip3o_grpo.cli import app
try:
    app(sys.argv[1:], prog_name="blip3o-grpo")
finally:
    print("LARGE", [name for name in {LARGE} if name in sys.modules])
"""

WRONG = {
    "reward": (["train", RECIPE, "rewards.0.type=ocrr"], "did you mean 'ocr'?"),
    "option value": (["train", RECIPE, "rewards.0.options.variant=blip3"], "unknown OCR variant"),
    "option": (["train", RECIPE, "rewards.0.options.varient=ned"], "did you mean 'variant'?"),
    "key": (["train", RECIPE, "rollout.groupsize=4"], "did you mean 'group_size'?"),
    "prompt file": (["train", RECIPE, "prompts.train=nope.jsonl"], "relative paths"),
    "prompts": (["train", RECIPE, "prompts.train=plain.txt"], "cannot fill a step"),
    "policy": (["train", RECIPE, "policy.path=/nope"], "relative paths"),
    "weights": (["train", RECIPE, "policy.path=cut"], "not a complete safetensors file"),
    "another policy's weights": (["train", RECIPE, "policy.path=tiny_blip3o"], "give policy.type=blip3o"),
    "weights of tokens": (["train", "tiny_blip3o", "policy.path=tiny"], "give policy.type=blip3o_next"),
    "plan without tokens": (["plan", "tiny_blip3o"], "policy.type=blip3o: plan knows"),
    "doctor without tokens": (["doctor", "tiny_blip3o"], "policy.type=blip3o: doctor knows"),
    "warm start without tokens": (["warmstart", "tiny_warmstart", "policy.type=blip3o"], "policy.type=blip3o: warm"),
    "option of tokens": (["train", "tiny_blip3o", "evaluation.top_p=0.9"], "evaluation.top_p=0.9: policy.type=blip3o"),
    "logger": (["train", RECIPE, "report_to=[wandb]"], "wandb is not installed"),
    "placement": (["train", RECIPE, "trainer.parallel.type=fsdp2"], "needs GPUs"),
    "suite": (["eval", "tiny", "--suite", "genevall"], "did you mean 'geneval'?"),
    "benchmark's data": (["eval", "tiny", "--suite", "dpg", "--data", "nope.csv"], "no such file; --data names"),
    "saved result": (["eval", "nope.json", "--suite", "dpg"], "nope.json"),
    "evaluated policy": (["eval", "tinyy"], "did you mean `tiny`?"),
    "compared policy": (["eval", "tiny", "--compare", "tinyy"], "no such folder"),
    "sampled policy": (["sample", "a sign", "--policy", "tinyy"], "no such folder"),
    "token in a prompt": (["sample", "a sign <I3>"], "reads as a token"),
    "steps": (["steps", "tiny", "--steps", "4"], "nothing to compare"),
    "report": (["report", "/nope"], "is not a run folder"),
    "rescore": (["rescore", "/nope"], "is not a run folder"),
    "card": (["card", "/nope"], "is not a run folder"),
    "gold": (["train", RECIPE, "guards.gold=[guard]"], "give 'guard' weight 0"),
    "recipe of a plan": (["plan", "nope.yaml"], "no such file"),
    "measured run": (["plan", RECIPE, "--measured", "/nope"], "no run folder"),
    "study": (["ablate", "nope.yaml"], "no such file"),
    "warm start": (["warmstart", "nope.yaml"], "no such file"),
    "doctor's policy": (["doctor", "--policy", "tinyy"], "no such folder"),
    "doctor's reward": (["doctor", RECIPE, "rewards.0.type=ocrr"], "did you mean 'ocr'?"),
    "test prompts": (["prompts", "check", "nope.jsonl", "nope.jsonl"], "no such prompt file"),
    "setting as an option": (["train", "--seed", "1"], "did you mean seed=1?"),
    "recipe without a name": (["train", ""], "name is empty"),
    "policy without a name": (["sample", "a sign", "--policy", ""], "name is empty"),
    "prompt without words": (["sample", ""], "a prompt is empty"),
    "suite without a name": (["eval", "tiny", "--suite", ""], "suite"),
    "guidance without end": (["sample", "a sign", "--guidance", "inf"], "finite"),
    "nearly tiny": (["train", RECIPE, "policy.path=tinny"], "did you mean `tiny`?"),
    "run folder below a file": (["train", RECIPE, "run_dir=plain.txt/run"], "plain.txt is a file"),
    "run folder in a circle": (["train", RECIPE, "run_dir=circle/run"], "links run in a circle"),
    "policy in a circle": (["sample", "a sign", "--policy", "circle"], "links run in a circle"),
    "study of nobody": (["ablate", "~nobody-here/study.yaml"], "there is no user"),
    "pictures below a file": (["sample", "a sign", "--out", "plain.txt/x.png"], "plain.txt is a file"),
    "evaluation below a file": (["eval", "tiny", "--out", "plain.txt/x.png"], "plain.txt is a file"),
    "long recipe": (["plan", "x" * 5000], "no shipped file is called 'xxx"),
    "long path": (["train", RECIPE, f"prompts.train={'x' * 5000}.txt"], "File name too long"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_input_is_told_before_anything_large_is_imported(name, tmp_path):
    args, words = WRONG[name]
    (tmp_path / "plain.txt").write_text("a red circle\na blue circle\n")
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "cut").mkdir()
    tiny = Path(RECIPE).parents[1] / "policies/tiny"
    for file in ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (tmp_path / "cut" / file).symlink_to(tiny / file)
    (tmp_path / "cut/model.safetensors").write_bytes(b"cut off")
    before = _cpu_seconds()
    done = subprocess.run(
        [sys.executable, "-c", PROBE, *args], capture_output=True, text=True, cwd=tmp_path, env=dict(os.environ)
    )
    seconds = _cpu_seconds() - before
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ") and words in lines[0], done.stderr
    assert len(lines[0]) < 1200
    assert done.returncode == 2
    assert done.stdout.strip().splitlines()[-1] == "LARGE []"
    assert seconds < CPU_SECONDS


@pytest.mark.parametrize("args", [["--help"], ["-h"], ["--version"], ["train", "-h"]])
def test_help_and_version_import_nothing_large(args):
    done = subprocess.run([sys.executable, "-c", PROBE, *args], capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stdout.strip().splitlines()[-1] == "LARGE []"


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.fixture
def finished(tmp_path):
    """A run folder as a finished run leaves it, as far as its summary needs."""
    config = load_run_config(RECIPE, [f"run_dir={tmp_path / 'run'}", "trainer.max_steps=2"])
    folder = RunFolder(config.run_dir)
    folder.prepare(config)
    (folder.checkpoints / "checkpoint-2").mkdir()
    write_manifest(folder.checkpoints / "checkpoint-2", 2)
    folder.policy.mkdir()
    (folder.policy / "config.json").write_text("{}")
    heldout = {"before": {"ocr": 0.25}, "after": {"ocr": 0.75}}
    summary = {"heldout": heldout, "steps": 2, "seconds": 1.0, "peak_memory_gb": 1.0}
    folder.summary.write_text(json.dumps(summary))
    for name, mean in (("before", 0.25), ("after", 0.75)):
        found = Evaluation(2, 1, 2, {"ocr": mean}, {"ocr": (mean, mean)}, {"a": {"ocr": mean}})
        found.save(folder.evaluations / f"{name}.json")
    return folder


def test_a_finished_run_answers_with_its_summary(finished):
    args = ["train", RECIPE, f"run_dir={finished.path}", "trainer.max_steps=2"]
    done = subprocess.run([sys.executable, "-c", PROBE, *args], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "0.250" in done.stdout and "+0.500" in done.stdout and str(finished.summary) in done.stdout
    assert done.stdout.strip().splitlines()[-1] == "LARGE []"


@pytest.mark.parametrize("lacking", ["summary.json", "policy/config.json", "config.yaml", "evaluations/after.json"])
def test_a_run_that_lacks_something_is_not_finished(finished, lacking):
    config = load_run_config(RECIPE, [f"run_dir={finished.path}", "trainer.max_steps=2"])
    assert finished_result(config).steps == 2
    (finished.path / lacking).unlink()
    assert finished_result(config) is None


@pytest.mark.parametrize(
    ("args", "hint"),
    [
        (["train", "--seed=1"], "did you mean seed=1?"),
        (["train", "--trainer.max_steps", "10"], "did you mean trainer.max_steps=10?"),
        (["train", "--lr", "3e-4"], "did you mean trainer.learning_rate=3e-4?"),
        (["train", "--max-step", "5"], "did you mean trainer.max_steps=5?"),
        (["train", "--group-size"], "did you mean rollout.group_size=VALUE?"),
        (["plan", "--jsn"], "did you mean --json?"),
        (["eval", "tiny", "--group-size", "4"], "did you mean --set rollout.group_size=4?"),
        (["warmstart", "x.yaml", "--learning-rate", "1"], "did you mean learning_rate=1?"),
        (["ablate", "x.yaml", "--max-steps", "3"], "did you mean trainer.max_steps=3?"),
        (["doctor", "--group-size", "3"], "did you mean rollout.group_size=3?"),
        (["train", "--nothing-like-it"], "settings of a recipe are written section.key=value"),
    ],
)
def test_a_setting_given_as_an_option_is_told_how_it_is_written(args, hint):
    result = CliRunner().invoke(app, args)
    assert result.exit_code == 2
    assert hint in result.stderr and result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["abblate"], "no such command 'abblate'. Did you mean 'ablate'?"),
        (["prompts", "genevall"], "Did you mean 'geneval'?"),
        (["--nosuch"], "no such option: --nosuch"),
        (["ablate"], "missing argument 'study'"),
        (["prompts", "text"], "missing option '--out'"),
        (["report", "a", "b", "c"], "unexpected extra argument"),
        (["sample", "a cat", "--images", "0"], "'--images': it should be greater than or equal to 1"),
        (["sample", "a cat", "--images", "many"], "'--images': it should be a valid integer"),
        (["sample", "a cat", "--temperature", "nan"], "'--temperature': it should be"),
        (["sample", "a cat", "--out"], "'--out' requires an argument"),
    ],
)
def test_wrong_arguments_are_one_line(args, words):
    result = CliRunner().invoke(app, args)
    assert result.exit_code == 2
    assert words in result.stderr and result.stderr.count("\n") == 1


@pytest.mark.parametrize("args", [[], ["prompts"]])
def test_no_arguments_are_answered_with_the_help(args):
    result = CliRunner().invoke(app, args)
    assert "Usage:" in result.output and "error:" not in result.output


def test_the_value_of_an_option_may_look_like_an_option():
    result = CliRunner().invoke(app, ["sample", "x", "--out", "--seed"])
    assert "written as a .png file" in result.stderr


def test_the_first_of_two_sections_with_one_key_is_meant_unless_named():
    from blip3o_grpo.configs import RunConfig

    keys = list(setting_names(RunConfig))
    assert {"seed", "trainer.lora.rank", "trainer.parallel.zero_stage", "rollout.decoder"} <= set(keys)
    assert nearest_key("evaluation.num_diffusion_steps", keys) == "evaluation.num_diffusion_steps"
    assert nearest_key("num_diffusion_steps", keys) == "rollout.num_diffusion_steps"


@pytest.mark.parametrize("name", ["pic[a].png", "[/a].png", ":smile:.png", "[red]x[/red].png"])
def test_user_text_is_printed_as_it_is(name, capsys):
    from rich.console import Console

    from blip3o_grpo.terminal import show

    show(Console(), "written: ", (name, "bold"))
    assert capsys.readouterr().out == f"written: {name}\n"


def test_what_no_terminal_can_show_is_replaced(capsys):
    from rich.console import Console

    from blip3o_grpo.terminal import show

    show(Console(), "a\udcff\x1b[2Jb")
    assert capsys.readouterr().out == "a\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}[2Jb\n"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["train", "trainer.max_stepss=" + "1" * 290], "did you mean 'max_steps'?"),
        (["plan", "trainer.max_stepss=" + "1" * 290], "did you mean 'max_steps'?"),
        (["sample", "x" * 300, "--policy", "tinyy"], "no such folder"),
        (["sample", "\udcff", "--policy", "tiny"], "U+DCFF, which is no text"),
        (["train", RECIPE, "rewards.\N{SUPERSCRIPT TWO}.weight=2"], "is no item of a list"),
    ],
)
def test_text_that_cannot_be_a_path_is_no_path(args, words):
    result = CliRunner().invoke(app, args)
    assert result.exit_code == 2, result.exception
    assert words in result.stderr and result.stderr.count("\n") == 1
