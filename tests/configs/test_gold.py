"""Gold that could not be watched is refused with its key and the nearest right value, before anything else is read."""

from pathlib import Path

import pytest

from blip3o_grpo.configs import ConfigError, load_run_config
from blip3o_grpo.configs.study import load_base, load_study_config

RECIPE = Path(__file__).parents[2] / "configs" / "tiny_ocr.yaml"
FREE = "rewards.1.weight=0"
"""The recipe trains on `ocr`; its `guard` is only measured then."""
REFUSED = {
    (FREE, "guards.gold=[gard]"): "guards.gold: there is no reward 'gard'; did you mean 'guard'?",
    (FREE, "guards.gold=[x]"): "guards.gold: there is no reward 'x'; known: ocr, guard",
    (FREE, "guards.gold=[ocr]"): "guards.gold: reward 'ocr' has weight 1, so training buys it; gold is what nothing "
    "trains on: name 'guard', or give 'ocr' weight 0",
    ("guards.gold=[guard]",): "guards.gold: reward 'guard' has weight 0.3, so training buys it; gold is what nothing "
    "trains on: give 'guard' weight 0",
    (FREE, "guards.gold=[guard,guard]"): "guards.gold: 'guard' is named twice",
    (FREE, "guards.gold=[guard]", "evaluation.every_steps=0"): "guards.gold: gold is watched at evaluations during "
    "training, and evaluation.every_steps is 0; give evaluation.every_steps: 4",
    (
        FREE,
        "guards.gold=[guard]",
        "evaluation.every_steps=0",
        "trainer.num_iterations=8",
        "checkpoint.every_steps=8",
    ): "give evaluation.every_steps: 8",
    (FREE, "guards.gold=[guard]", "evaluation.num_prompts=3"): "guards.gold: of evaluation.num_prompts=3 prompts "
    "nothing is ever known beyond their noise; give 4 or more",
    (FREE, "guards.gold=[guard]", "checkpoint.keep_best=0"): "guards.gold: checkpoint.keep_best is 0, so the best by "
    "gold would not stay; give 1",
    (FREE, "guards.gold=[guard]", "guards.gold_fall=roll_back"): "'guards.gold_fall' is 'roll_back'; did you mean "
    "'rollback'?",
    ("guards.gold=guard",): "'guards.gold' is 'guard'; give a list, such as [a, b]",
}


@pytest.mark.parametrize("overrides", REFUSED, ids=str)
def test_gold_that_cannot_be_watched_is_refused(overrides):
    with pytest.raises(ConfigError) as caught:
        load_run_config(RECIPE, overrides)
    assert REFUSED[overrides] in str(caught.value)


def test_gold_of_weight_0_is_taken_with_the_fewest_prompts():
    config = load_run_config(RECIPE, [FREE, "guards.gold=[guard]", "evaluation.num_prompts=4"])
    assert config.guards.gold == ("guard",) and config.guards.gold_fall == "stop"


def test_a_smoke_of_a_study_needs_no_evaluations_for_its_gold(tmp_path):
    base, study = tmp_path / "base.yaml", tmp_path / "study.yaml"
    base.write_text(f"{RECIPE.read_text().replace('weight: 0.3', 'weight: 0')}\nguards: {{gold: [guard]}}\n")
    study.write_text("study_dir: study\nbase: base.yaml\narms: [{name: a, weights: {ocr: 1}}]\n")
    assert load_base(load_study_config(study)).guards.gold == ("guard",)
    assert load_base(load_study_config(study, smoke=True)).guards.gold == ()
