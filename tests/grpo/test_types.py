"""A type checker sees what the package exports, and finds nothing to say about the public API and the examples."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
USER = """
import blip3o_grpo as bg

config = bg.load_recipe("tiny_ocr", "seed=1")
reveal_type(config)
reveal_type(bg.train(config).after.means)
reveal_type(bg.evaluate("tiny", suite="ocr"))
reveal_type(bg.sample("tiny", "a sign"))
reveal_type(bg.load_prompts("prompts.txt"))
reveal_type(bg.plan(config)["gpus"])
reveal_type(bg.BLIP3oNext.from_pretrained("tiny"))
reveal_type(bg.__version__)
bg.tarin(config)
"""


def check(*arguments):
    """What the type checker says of files, or of the project: (severity, text) of each message."""
    command = [sys.executable, "-m", "basedpyright", "--pythonpath", sys.executable, "--outputjson", *arguments]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    found = json.loads(result.stdout)
    assert found["summary"]["filesAnalyzed"] > 0
    return [(message["severity"], message["message"]) for message in found["generalDiagnostics"]]


def test_nothing_is_wrong():
    assert check() == []


@pytest.mark.slow
def test_users_see_every_type(tmp_path):
    file = tmp_path / "user.py"
    file.write_text(USER)
    messages = check(str(file))
    types = [text.rpartition(" is ")[2] for severity, text in messages if severity == "information"]
    assert types == [
        '"RunConfig"',
        '"dict[str, float]"',
        '"SuiteResult"',
        '"list[list[Image]]"',
        '"list[Prompt]"',
        '"int"',
        '"BLIP3oNext"',
        '"str"',
    ]
    assert any('"tarin" is not a known attribute' in text for severity, text in messages if severity == "error")
