"""One verdict about one change: both sides of every threshold, and rows by hand."""

import numpy as np
import pytest

from blip3o_grpo.card.measures import DIVERSITY, make_rows, measure_groups
from blip3o_grpo.card.verdicts import MEANINGS, judge, summary
from blip3o_grpo.evaluation.statistics import Estimate, estimate
from blip3o_grpo.rollout import Completion, Prompt, Rollout, RolloutGroup


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.01, 0.2, "better"),
        (0.0, 0.2, "not worse"),  # 0 itself is not left out
        (-0.04, 0.1, "not worse"),
        (-0.04, -0.01, "not worse"),  # a fall is shown, and it does not matter
        (-0.05, 0.1, "cannot tell"),  # just the margin
        (-0.2, 0.2, "cannot tell"),
        (-0.2, 0.0, "cannot tell"),
        (-0.2, -0.01, "worse"),
        (-0.2, -0.1, "worse"),
        (None, None, "cannot tell"),
    ],
)
def test_the_interval_and_the_margin_decide(low, high, verdict):
    found = judge(Estimate(0.0, low, high, 8), margin=0.05)
    assert found == verdict and found in MEANINGS


def test_the_margin_is_in_units_of_the_measure():
    fall = Estimate(-0.1, -0.2, -0.01, 8)
    assert judge(fall, 0.05) == "worse" and judge(fall, 0.3) == "not worse"


def test_of_a_reward_with_a_negative_weight_less_is_better():
    fall, rise = Estimate(-0.2, -0.3, -0.1, 8), Estimate(0.2, 0.1, 0.3, 8)
    assert judge(fall, 0.05, weight=-1) == "better" and judge(rise, 0.05, weight=-1) == "worse"
    assert judge(fall, 0.05, lower_is_better=True) == "better" and judge(rise, 0.05, lower_is_better=True) == "worse"
    assert judge(rise, 0.05, weight=-1, lower_is_better=True) == "better"
    assert judge(rise, 0.4, weight=-0.5) == "not worse" and judge(rise, 0.05, weight=0.5) == "better"


IDS = [f"p{i}" for i in range(6)]


def table(**values):
    """By prompt, of lists of six values each."""
    return {id_: {name: column[i] for name, column in values.items()} for i, id_ in enumerate(IDS)}


def test_rows_are_paired_by_prompt_and_know_what_the_run_trained_on():
    before = table(ocr=[0.1, 0.2, 0.3, 0.4, 0.5, 0.6], look=[0.9] * 6)
    after = table(ocr=[0.3, 0.4, 0.5, 0.6, 0.7, 0.9], look=[0.5, 0.6, 0.5, 0.6, 0.5, 0.6])
    sets = {"heldout": IDS[:4], "reworded": IDS[4:]}
    rows = {row.name: row for row in make_rows(before, after, sets, {"ocr": 1.0}, {"look": 0.5})}
    assert list(rows) == ["heldout/ocr", "heldout/look", "reworded/ocr", "reworded/look"]
    look = rows["heldout/look"]
    expected = estimate([-0.4, -0.3, -0.4, -0.3], paired=True)
    assert (look.change.low, look.change.high) == pytest.approx((expected.low, expected.high))
    assert (look.margin, look.weight, look.verdict) == (0.5, 0.0, "not worse")  # -0.35 +- 3.18 x 0.0289
    assert (look.before.mean, look.after.mean) == pytest.approx((0.9, 0.55))
    assert (rows["heldout/ocr"].margin, rows["heldout/ocr"].weight) == (0.05, 1.0)
    assert rows["reworded/ocr"].verdict == "cannot tell"  # of two prompts
    assert summary(rows.values()) == "1 not worse, 3 cannot tell"
    (worse,) = make_rows(before, after, {"heldout": IDS}, {}, {"ocr": 0.05})[1:]
    assert worse.verdict == "worse"


def test_prompts_without_a_value_in_either_do_not_count():
    before = table(ocr=[0.1, None, 0.3, 0.4, 0.5, 0.6])
    after = table(ocr=[0.2, 0.9, None, 0.5, 0.6, 0.7], clip=[0.5] * 6)
    (row,) = make_rows(before, after, {"heldout": IDS}, {}, {})
    assert row.change.n == row.before.n == 4 and row.change.mean == pytest.approx(0.1)


def group(name, scores, brightness):
    completion = Completion(np.zeros(4, np.int32), np.zeros(4, np.float32), 0, 0)
    images = [np.full((8, 8, 3), value, np.uint8) for value in brightness]
    rollouts = [Rollout(completion, image, {"ocr": score}) for image, score in zip(images, scores, strict=True)]
    return RolloutGroup(Prompt(name, name), [1], tuple(rollouts))


def test_a_prompts_value_is_the_mean_over_its_images_and_their_distance():
    found = measure_groups([group("a", [0.0, 1.0], [0, 255]), group("b", [None, None], [7, 7]), group("c", [0.5], [1])])
    assert found == {"a": {"ocr": 0.5, DIVERSITY: 1.0}, "b": {"ocr": None, DIVERSITY: 0.0}, "c": {"ocr": 0.5}}
