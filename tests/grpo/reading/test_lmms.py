"""The model class for lmms-eval, on a random policy. Of lmms-eval there are stand-ins for two names: it is not here."""

import importlib
import sys
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace

import pytest
from PIL import Image

from blip3o_grpo.configs import ConfigError


@dataclass(frozen=True)
class Manifest:
    model_id: str
    simple_class_path: str


class Base:
    def __init__(self):
        self.task_dict = {}
        self.cache_hook = SimpleNamespace(add_partial=lambda *_: None)


@pytest.fixture(scope="module")
def module():
    names = {"lmms_eval.api.model": {"lmms": Base}, "lmms_eval.models.registry_v2": {"ModelManifest": Manifest}}
    with pytest.MonkeyPatch.context() as patch:
        for name in ("lmms_eval", "lmms_eval.api", "lmms_eval.models", *names):
            stand_in = ModuleType(name)
            vars(stand_in).update(names.get(name, {}))
            patch.setitem(sys.modules, name, stand_in)
        yield importlib.import_module("blip3o_grpo.reading.lmms")
    sys.modules.pop("blip3o_grpo.reading.lmms")


@pytest.fixture(scope="module")
def model(module, policy_path):
    model = module.BLIP3oNextReader(str(policy_path), device="cpu", batch_size=1)
    model.task_dict = {"task": {"test": [{"answer": "blue"}]}}
    return model


def pictures(record):
    return [Image.new("L", (30, 20), 90)]  # grey, as some tasks have them


def requests(*arguments):
    return [SimpleNamespace(args=(*each, pictures, 0, "task", "test")) for each in arguments]


def test_the_entry_point_names_the_class(module):
    folder, _, name = module.MANIFEST.simple_class_path.rpartition(".")
    assert (folder, name) == (module.__name__, module.BLIP3oNextReader.__name__)


def test_likelihoods_are_losses_since_lmms_eval_takes_the_smallest(model):
    asked = requests(("Which colour?", "blue"), ("Which colour?", lambda record: record["answer"]))
    (first, greedy), second = model.loglikelihood(asked)
    codes = model.reader.see([pictures(None)[0].convert("RGB")])
    ((total, expected),) = model.reader.loglikelihoods("Which colour?", codes, ["blue"])
    assert first == pytest.approx(-total) and first > 0 and greedy == expected and second[0] == pytest.approx(first)


def test_answers_end_at_the_tasks_stop_words(module, model):
    whole, cut = model.generate_until(
        requests(("What?", {"max_new_tokens": 6}), ("What?", {"max_new_tokens": 6, "until": ["", "zzz"]}))
    )
    assert whole == cut
    assert module.cut("one\ntwo stop three", ["stop", "\n"]) == "one" and module.cut("one", [""]) == "one"


def test_other_numbers_and_several_rounds_are_refused(module, model, policy_path):
    with pytest.raises(ConfigError, match="dtype is 'int8'; it is float32 or bfloat16"):
        module.BLIP3oNextReader(str(policy_path), dtype="int8")
    with pytest.raises(NotImplementedError, match="one question at a time"):
        model.generate_until_multi_round([])
