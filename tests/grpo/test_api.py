"""`import blip3o_grpo as bg`: light, complete, with errors that are the user's and not Ray's."""

import importlib.util
import json
import pkgutil
import subprocess
import sys

import pytest
import ray
from typer.testing import CliRunner

import blip3o_grpo as bg
from blip3o_grpo import api
from blip3o_grpo.cli import app
from blip3o_grpo.configs import DEFAULT_RECIPE, STUDIES
from blip3o_grpo.errors import OutOfMemory

HEAVY = ("torch", "ray", "vllm", "trl", "transformers", "diffusers", "paddle", "numpy", "PIL", "pydantic")


def python(code, **environment):
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment or None)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_importing_the_package_imports_nothing_heavy():
    assert python(f"import sys, blip3o_grpo as bg; dir(bg); print([m for m in {HEAVY} if m in sys.modules])") == "[]\n"


def test_a_recipe_loads_without_a_model_library():
    heavy = [name for name in HEAVY if name != "pydantic"]
    code = f"import sys, blip3o_grpo as bg; bg.load_recipe('tiny_ocr'); print([m for m in {heavy} if m in sys.modules])"
    assert python(code) == "[]\n"


def test_every_name_exists_and_dir_lists_it():
    assert [name for name in bg.__all__ if getattr(bg, name, None) is None] == []
    assert set(dir(bg)) >= set(bg.__all__)
    assert python("import blip3o_grpo as bg; print(bg.__version__)", EAGER_IMPORT="1") == f"{bg.__version__}\n"


def test_no_function_has_the_name_of_a_module():
    """Importing the module would put it in the function's place."""
    modules = {module.name for module in pkgutil.iter_modules(bg.__path__)}
    inside = {name for name in bg.__all__ if importlib.util.find_spec(f"blip3o_grpo.{name}")}
    assert inside == {"configs", "policies", "rewards", "rollout"} and inside <= modules


def test_a_shipped_recipe_has_a_name(tmp_path, monkeypatch):
    assert bg.load_recipe("tiny_ocr", "seed=1").seed == 1
    assert bg.load_recipe("tiny_ocr") == bg.load_recipe(DEFAULT_RECIPE) == bg.load_recipe(str(DEFAULT_RECIPE))
    assert bg.load_study("tiny_rewards") == bg.load_study(STUDIES / "tiny_rewards.yaml")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny_ocr").mkdir()  # such as the folder of a run
    assert bg.load_recipe("tiny_ocr").run_dir == "runs/tiny_ocr"
    (tmp_path / "mine").write_text(DEFAULT_RECIPE.read_text().replace("prompts/", f"{DEFAULT_RECIPE.parent}/prompts/"))
    assert bg.load_recipe("mine", "run_dir=here").run_dir == "here"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bg.load_recipe("tiny_orc"), "did you mean 'tiny_ocr'?"),
        (lambda: bg.load_recipe("zzz"), "shipped: blip3o_next_1gpu, "),
        (lambda: bg.load_recipe("tiny_ocr.yaml"), "no such file"),
        (lambda: bg.load_recipe("tiny_ocr", "trainer.learning_rte=1"), "did you mean 'learning_rate'?"),
        (lambda: bg.load_recipe("tiny_ocr", ["seed=1"]), r"override \['seed=1'\]: expected"),
        (lambda: bg.load_study("tiny_reward"), "did you mean 'tiny_rewards'?"),
        (lambda: bg.train("tiny_ocr"), r"expected a RunConfig, found 'tiny_ocr'; write train\(load_recipe"),
        (lambda: bg.plan(DEFAULT_RECIPE), "expected a RunConfig"),
        (lambda: bg.warm_start(bg.load_recipe("tiny_ocr")), "expected a WarmstartConfig"),
        (lambda: bg.ablate("tiny_rewards"), "expected a StudyConfig"),
        (lambda: bg.evaluate("tiny", suite="sight"), "known suites: dpg, geneval, longtext, ocr"),
        (lambda: bg.evaluate("tiny", recipe="tiny_orc"), "did you mean 'tiny_ocr'?"),
        (lambda: bg.sample("tiny", "a sign", images=0), "images is 0; it must be at least 1"),
        (lambda: bg.sample("tiny", "a sign", temperature=0), "temperature is 0; it must be above 0"),
        (lambda: bg.sample("tiny", "a sign", guidance=float("nan")), "guidance is nan"),
    ],
)
def test_mistakes_are_told_in_one_sentence(call, message):
    with pytest.raises(bg.ConfigError, match=message) as raised:
        call()
    assert "\n" not in str(raised.value)


def test_what_a_worker_raised_is_raised_and_not_rays_wrapper():
    @api._plain_errors
    def fails(error):
        raise ray.exceptions.RayTaskError("call", "remote traceback", error)

    with pytest.raises(bg.RewardError, match="broken") as raised:
        fails(bg.RewardError("broken"))
    assert type(raised.value) is bg.RewardError
    with pytest.raises(OutOfMemory):
        fails(MemoryError("no room"))
    with pytest.raises(ray.exceptions.RayTaskError):  # a bug keeps its traceback
        fails(KeyError("bug"))


def test_the_same_seed_draws_the_same_images_of_one_or_many_prompts(policy_path):
    policy = bg.BLIP3oNext.from_pretrained(policy_path)
    texts = ['a red sign that says "A"', 'a blue sign that says "B"']
    first, second = bg.sample(policy, texts, images=3, seed=5, steps=2)
    assert len(first) == len(second) == 3 and {image.mode for image in first} == {"RGB"}
    assert bg.sample(str(policy_path), texts[0], images=3, seed=5, steps=2) == [first]
    assert bg.sample(policy, bg.Prompt("id", texts[0]), images=2, seed=5, steps=2)[0] != second[:2]
    assert bg.sample(policy, [], images=1) == []
    with pytest.raises(bg.PromptError, match="tokens long"):
        bg.sample(policy, "very " * 3000)


def test_a_plan_is_what_the_command_prints():
    shown = CliRunner().invoke(app, ["plan", str(DEFAULT_RECIPE), "--json"])
    assert json.loads(shown.stdout) == bg.plan(bg.load_recipe("tiny_ocr"))


def test_commands_take_the_names_of_shipped_recipes():
    assert CliRunner().invoke(app, ["plan", "tiny_ocr", "--json"]).exit_code == 0
    assert "did you mean 'tiny_ocr'?" in CliRunner().invoke(app, ["plan", "tiny_orc"]).stderr
