"""Nothing in this project loads what could run: no other way to read a pickle, and no code of checkpoints."""

import ast
from pathlib import Path

import pytest

from blip3o_grpo.policies import BLIP3oNext
from tests.robustness.case import edit_json

ROOT = Path(__file__).parents[2]
SOURCES = sorted(path for folder in ("configs", "grpo", "policies", "rewards", "rollout", "scripts")
                 for path in (ROOT / folder).rglob("*.py"))  # fmt: skip
FORBIDDEN = {"pickle.load", "yaml.unsafe_load", "yaml.full_load", "yaml.load_all", "joblib.load", "dill.load"}
RUNS_ITS_OWN_SOURCE = {"scripts/mutation/judging.py"}
"""A changed module of this checkout, to see whether its tests notice."""
UNPICKLES_ITS_OWN_BYTES = {"rewards/conformance.py"}
"""Sends a plug-in's options through pickle as Ray will, in the same process."""


def calls(path):
    """(name, keyword arguments) of every call in a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), {word.arg: ast.unparse(word.value) for word in node.keywords}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_source_reads_what_could_run(path):
    for name, words in calls(path):
        assert name not in FORBIDDEN and name not in ("eval", "os.system"), name
        if name == "exec":
            assert str(path.relative_to(ROOT)) in RUNS_ITS_OWN_SOURCE
        if name == "pickle.loads":
            assert str(path.relative_to(ROOT)) in UNPICKLES_ITS_OWN_BYTES
        if name == "torch.load":
            assert words.get("weights_only") == "True", words
        if name == "np.load":
            assert words.get("allow_pickle", "False") == "False", words
        if name == "yaml.load":
            assert words.get("Loader") in ("_StrictLoader", "yaml.CSafeLoader"), words
        assert words.get("trust_remote_code", "False") == "False", name
        assert words.get("shell", "False") == "False", name
        if name == "AutoTokenizer.from_pretrained":
            assert words.get("trust_remote_code") == "False", "its default is to ask the user"


def test_code_in_a_checkpoint_is_left_alone(world):
    """Its tokenizer asks for a class of its own; ours is used, and nobody is asked whether to trust it."""
    folder = world.checkpoint()
    for name in ("own_tokenizer", "modeling_own"):
        (folder / f"{name}.py").write_text(f"open({str(world.folder / 'was-run')!r}, 'w')\n")
    auto = {"AutoTokenizer": ["own_tokenizer.OwnTokenizer", None]}
    edit_json(folder / "tokenizer_config.json", auto_map=auto, tokenizer_class="OwnTokenizer")
    edit_json(folder / "config.json", auto_map={"AutoModelForCausalLM": "modeling_own.Own"})
    BLIP3oNext.check(folder)
    assert not (world.folder / "was-run").exists()


def test_everything_is_looked_at():
    assert len(SOURCES) > 100
