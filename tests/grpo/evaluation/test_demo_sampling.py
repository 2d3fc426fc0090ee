"""The demo's top-p and top-k: for evaluations and `sample`; training draws from all image tokens and refuses them."""

import pytest
from pydantic import ValidationError

from blip3o_grpo import api
from blip3o_grpo.configs import ConfigError
from blip3o_grpo.evaluation.heldout import collect_heldout
from blip3o_grpo.evaluation.suites import suite_config
from blip3o_grpo.rollout.messages import Draw


class Asked:
    """A pipeline that remembers what it was asked for."""

    def collect(self, prompts, step, **options):
        self.options = options
        return type("Batch", (), {"groups": ("one",)})


@pytest.mark.parametrize(
    ("evaluation", "rollout", "draw"),
    [
        ({}, {"temperature": 0.7}, None),
        ({"temperature": 0.7}, {"temperature": 0.7}, None),
        ({"top_p": 0.95, "top_k": 1200}, {}, Draw(1.0, 0.95, 1200)),
        ({"top_k": 5}, {"temperature": 0.7}, Draw(0.7, 1.0, 5)),
        ({"temperature": 0.5}, {"temperature": 0.7}, Draw(0.5)),
    ],
)
def test_only_the_evaluation_is_cut(make_config, evaluation, rollout, draw):
    pipeline = Asked()
    collect_heldout(pipeline, (), make_config(evaluation=evaluation, rollout=rollout))
    assert pipeline.options["draw"] == draw


def test_eval_options_are_settings_of_the_evaluation():
    overrides = ["evaluation.top_p=0.95", "evaluation.top_k=1200", "evaluation.temperature=0.9"]
    section = suite_config("ocr", ["tiny"], None, None, overrides).evaluation
    assert (section.top_p, section.top_k, section.temperature) == (0.95, 1200, 0.9)


@pytest.mark.parametrize("section", ["rollout", "trainer"])
@pytest.mark.parametrize("key", ["top_p", "top_k"])
def test_training_refuses_them(make_config, section, key):
    with pytest.raises(ValidationError, match=key):
        make_config(**{section: {key: 1}})


@pytest.mark.parametrize(
    "wrong", [{"top_p": 0}, {"top_p": 1.1}, {"top_p": float("nan")}, {"top_k": -1}, {"temperature": 0.0}]
)
def test_bad_values_are_told_in_one_line(wrong):
    for call in (lambda: api.sample("tiny", "a sign", **wrong), lambda: api.evaluate("tiny", **wrong)):
        with pytest.raises(ConfigError, match=next(iter(wrong))) as refusal:
            call()
        assert "\n" not in str(refusal.value)
