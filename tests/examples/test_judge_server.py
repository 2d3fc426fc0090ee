"""The example server is a judge like any other; what mPLUG says becomes yes or no as DPG-Bench counts it."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from blip3o_grpo.rewards import RewardError
from blip3o_grpo.rewards.dpg.reward import ASKED
from blip3o_grpo.rewards.judge.answers import YES
from blip3o_grpo.rewards.judge.client import Judge, Question
from blip3o_grpo.rewards.judge.options import JudgeOptions
from tests.rewards.http.speaking import listening

FOLDER = Path(__file__).parents[2] / "examples/judge_server"


def load(name):
    spec = importlib.util.spec_from_file_location(f"judge_server_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_judge_asks_it_as_any_other():
    def answer(image, question):
        assert (image.size, image.mode) == ((6, 4), "RGB")
        return "yes" if np.asarray(image).mean() > 100 and question == "Bright?" else "no"

    images = [np.full((4, 6, 3), level, np.uint8) for level in (200, 10)]
    with listening(load("serve").create_app(answer, "mine")) as url:
        judge = Judge(JudgeOptions(f"{url}/v1", "mine", "1"))
        assert [found.value for found in judge.ask([Question("Bright?", image, YES) for image in images])] == [1.0, 0.0]
        with pytest.raises(RewardError, match="has no model 'other'; it has: 'mine'"):
            Judge(JudgeOptions(f"{url}/v1", "other", "1"))


@pytest.mark.parametrize(("said", "answer"), [("yes", "yes"), ("no", "no"), ("Yes", "no"), ("two dogs", "no")])
def test_mplug_gets_the_bare_question_and_every_other_word_is_no(monkeypatch, said, answer):
    """The model is a stand-in: with its authors' classes, `examples/judge_server/test_mplug.py` runs where they are."""
    mplug, asked = load("mplug"), []
    monkeypatch.setattr(mplug, "load", lambda: None)
    monkeypatch.setattr(mplug, "ask", lambda model, image, question: asked.append(question) or said)
    assert mplug.answer(None, ASKED.replace("{question}", "Is there a dog?")) == answer
    assert asked == ["Is there a dog?"]
