"""Changes between two evaluations: paired by prompt, by tag, and nothing claimed where nothing is shown."""

import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from blip3o_grpo.evaluation.changes import paired_changes
from blip3o_grpo.evaluation.heldout import Evaluation
from blip3o_grpo.evaluation.statistics import Estimate, estimate
from blip3o_grpo.evaluation.tables import heldout_table
from blip3o_grpo.result import TrainingResult

TAGS = {"geneval": {"counting": ["a", "b", "c", "d"], "colors": ["e", "f", "g"]}}


def evaluation(scores, tags=None, name="geneval"):
    per_prompt = {id_: {name: score} for id_, score in scores.items()}
    known = [score for score in scores.values() if score is not None]
    return Evaluation(0, len(scores), 1, {name: float(np.mean(known))}, {name: None}, per_prompt, {}, tags or {})


def test_changes_are_paired_by_prompt_and_leave_out_what_one_side_lacks():
    before = evaluation({"a": 0.0, "b": 0.5, "c": 0.25, "d": 0.0, "e": None, "f": 0.5})
    after = evaluation({"f": 0.75, "a": 0.5, "b": 1.0, "c": 0.75, "d": 0.25, "e": 1.0, "g": 1.0})
    change = paired_changes(before, after)["geneval"]
    assert change == estimate([0.25, 0.5, 0.5, 0.5, 0.25], paired=True) and change.direction == 1


def test_changes_of_tags_and_of_their_mean():
    before = evaluation(dict.fromkeys("abcdefg", 0.0), TAGS)
    after = evaluation({"a": 1.0, "b": 0.5, "c": 0.5, "d": 1.0, "e": 0.0, "f": 0.5, "g": 0.0}, TAGS)
    changes = paired_changes(before, after)
    assert changes["geneval/counting"] == estimate([1.0, 0.5, 0.5, 1.0], paired=True)
    assert changes["geneval/colors"] == Estimate(pytest.approx(1 / 6), None, None, 3)
    assert changes["geneval/overall"] == estimate([1.0, 0.5, 0.5, 1.0], [0.0, 0.5, 0.0], paired=True)
    assert set(paired_changes(before, evaluation(dict.fromkeys("abcd", 0.0)))) == {"geneval"}  # of an older version


def test_a_score_that_is_missing_later_is_left_out_too():
    before = evaluation({"a": 0.0, "b": 0.5, "c": 0.25, "d": 0.0, "e": 0.5})
    after = evaluation({"a": 0.25, "b": 0.25, "c": 0.5, "d": 0.5, "e": None})
    assert paired_changes(before, after)["geneval"] == estimate([0.25, -0.25, 0.25, 0.5], paired=True)


def test_differences_may_lie_between_minus_one_and_one():
    """That all prompts went from wrong to right leaves open that another one goes from right to wrong."""
    ids = "abcdefgh"
    tags = {"geneval": {"counting": list(ids)}}
    changes = paired_changes(evaluation(dict.fromkeys(ids, 0.0), tags), evaluation(dict.fromkeys(ids, 1.0), tags))
    low = 2 * 0.05 ** (1 / 8) - 1
    for name in ("geneval", "geneval/counting", "geneval/overall"):
        assert changes[name] == Estimate(1.0, pytest.approx(low), 1.0, 8), name


def test_without_a_common_prompt_there_are_means_and_no_interval():
    before = evaluation({"a": 0.25, "b": 0.25}, {"geneval": {"counting": ["a", "b"]}})
    after = evaluation({"c": 0.75, "d": 0.75}, {"geneval": {"counting": ["c", "d"]}})
    assert paired_changes(before, after) == {"geneval": Estimate(0.5, None, None, None)}


def test_the_table_at_the_end_of_a_run_claims_only_what_is_shown():
    means = [{"ocr": 0.4, "x": 0.5, "old": 0.1, "gone": 0.3}, {"ocr": 0.52, "x": 0.6, "old": 0.2}]
    changes = {
        "ocr": Estimate(0.12, -0.05, 0.29, 8),
        "x": Estimate(0.1, 0.04, 0.16, 8),
        "old": Estimate(0.1, None, None, None),
    }
    before, after = (Evaluation(0, 8, 1, found, dict.fromkeys(found, (0.1, 0.7)), {}) for found in means)
    result = TrainingResult(Path("run"), 3, before, after, changes, 1.0, 1.0, None, {})
    console = Console(width=120, color_system=None)
    with console.capture() as capture:
        console.print(heldout_table(result))
    text = " ".join(capture.get().replace("│", " ").split())
    ends = "(0.100 to 0.700)"
    assert f"ocr 0.400 0.520 +0.120 no change shown {ends} {ends} (-0.050 to +0.290, n=8)" in text
    assert f"x 0.500 0.600 +0.100 up {ends} {ends} (+0.040 to +0.160, n=8)" in text
    assert f"old 0.100 0.200 +0.100 no change shown {ends} {ends} (no interval)" in text
    assert "gone 0.300 – –" in text


def test_a_change_whose_prompts_were_not_stored_has_no_interval():
    before = evaluation({"a": 0.0}, name="ocr")
    after = evaluation({"b": 1.0}, name="ocr")
    assert paired_changes(before, after) == {"ocr": Estimate(1.0, None, None, None)}


def test_an_evaluation_of_an_older_version_is_read(tmp_path):
    old = {
        "step": 0,
        "num_prompts": 2,
        "images_per_prompt": 1,
        "means": {"geneval": 0.5, "geneval/overall": 0.5},
        "intervals": {"geneval": [0.0, 1.0], "geneval/overall": [0.1, 0.9]},
        "per_prompt": {"a": {"geneval": 0.0}, "b": {"geneval": 1.0}, "c": {"geneval": None}},
        "tags": {"geneval": {"counting": [0.5, 0.0, 1.0]}},
    }
    (tmp_path / "before.json").write_text(json.dumps(old))
    assert Evaluation.load(tmp_path / "before.json").estimates() == {
        "geneval": Estimate(0.5, 0.0, 1.0, 2),
        "geneval/overall": Estimate(0.5, 0.1, 0.9, 2),
        "geneval/counting": Estimate(0.5, 0.0, 1.0, None),
    }
