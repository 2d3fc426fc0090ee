"""lmms-eval's local tasks ask the questions that come along, and show their pictures."""

import importlib.util
import json
import re
from pathlib import Path

import pytest

from blip3o_grpo.reading.understanding import SIGNS_AND_SHAPES

FOLDER = Path(__file__).parents[2] / "examples" / "understanding"


@pytest.mark.parametrize("task", ["signs_and_shapes", "signs_and_shapes_written"])
def test_the_tasks_name_what_the_file_has(task):
    text = (FOLDER / f"{task}.yaml").read_text()
    assert f"task: {task}\n" in text and SIGNS_AND_SHAPES.name in text and "!function pictures.of" in text
    record = json.loads(SIGNS_AND_SHAPES.read_text().splitlines()[0])
    assert set(re.findall(r"\{\{(\w+)", text)) | {"answer"} <= set(record)


def test_the_picture_of_a_question_is_shown(monkeypatch):
    spec = importlib.util.spec_from_file_location("pictures", FOLDER / "pictures.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.chdir(SIGNS_AND_SHAPES.parent)
    (picture,) = module.of(json.loads(SIGNS_AND_SHAPES.read_text().splitlines()[0]))
    assert (picture.mode, picture.size) == ("RGB", (56, 56))
