"""When gold has fallen: hand-computed cases of the rule, and how often it is wrong on runs in which nothing happens."""

import numpy as np
import pytest

from blip3o_grpo.configs import RewardSection
from blip3o_grpo.evaluation.gold import find_fall, find_falls, gold_changes, gold_score, trained_changes
from blip3o_grpo.evaluation.heldout import Evaluation
from blip3o_grpo.evaluation.statistics import corrected_level, estimate

REWARDS = [RewardSection(name="bright"), RewardSection(name="ocr", weight=0)]


def evaluation(step, **scores):
    """Of prompts 0, 1, ...; a score may be None."""
    rows = {str(i): dict(zip(scores, row, strict=True)) for i, row in enumerate(zip(*scores.values(), strict=True))}
    known = {name: [value for value in values if value is not None] for name, values in scores.items()}
    means = {name: sum(values) / len(values) for name, values in known.items() if values}
    return Evaluation(step, len(rows), 1, means, dict.fromkeys(means), rows)


START = evaluation(0, bright=[0.2] * 4, ocr=[0.5, 0.6, 0.7, 0.8])


def test_gold_that_falls_while_the_reward_rises_is_found():
    """Changes -.3, -.4, -.3, -.4: mean -.35, standard error .0289; one comparison: -.35 +- 3.18 x .0289."""
    now = evaluation(4, bright=[0.5, 0.6, 0.5, 0.6], ocr=[0.2, 0.2, 0.4, 0.4])
    fall = find_fall([START], now, REWARDS, ["ocr"])
    assert (fall.step, fall.reward, fall.best, fall.level) == (4, "ocr", 0, 0.95)
    assert fall.before == pytest.approx(0.65) and fall.change.mean == pytest.approx(-0.35)
    assert (fall.change.low, fall.change.high) == pytest.approx((-0.442, -0.258), abs=0.001)
    assert fall.trained.mean == pytest.approx(0.35) and fall.change.n == fall.trained.n == 4
    assert str(fall).startswith(
        "gold reward 'ocr' fell from 0.650 at the start to 0.300 (change -0.350, 95 % interval -0.442 to -0.258, n=4) "
        "while the trained reward rose by 0.350 ("
    )


@pytest.mark.parametrize(
    ("bright", "ocr"),
    [
        ([0.5] * 4, [0.5, 0.6, 0.7, 0.8]),  # gold stays
        ([0.5] * 4, [0.6, 0.7, 0.8, 0.9]),  # gold rises
        ([0.5] * 4, [0.1, 0.6, 0.7, 0.8]),  # one prompt of four falls: -.1 +- 3.18 x .1
        ([0.2] * 4, [0.2, 0.2, 0.4, 0.4]),  # the trained reward stays: damage, no hack
        ([0.1] * 4, [0.2, 0.2, 0.4, 0.4]),  # it falls too
    ],
)
def test_what_is_no_hack_is_not_found(bright, ocr):
    assert find_fall([START], evaluation(4, bright=bright, ocr=ocr), REWARDS, ["ocr"]) is None


def test_it_is_compared_with_gold_at_its_best_and_the_start_counts():
    """Gold rose and turned round: not below the start, and yet it fell."""
    peak = evaluation(4, bright=[0.4] * 4, ocr=[0.86, 0.9, 1.0, 1.0])
    now = evaluation(8, bright=[0.6] * 4, ocr=[0.5, 0.6, 0.7, 0.7])
    fall = find_fall([START, peak], now, REWARDS, ["ocr"])
    assert (fall.best, fall.level) == (4, pytest.approx(1 - 0.05 / 6)) and fall.trained.mean == pytest.approx(0.2)
    assert "after step 4" in str(fall) and "99.17 % interval" in str(fall)
    assert find_fall([START], now, REWARDS, ["ocr"]) is None
    assert find_fall([], now, REWARDS, ["ocr"]) is None


def test_more_comparisons_ask_for_more():
    """Changes of -.10, -.14, -.18, -.02 are a fall beside one comparison (t = 3.2 > 3.18), and none among three."""
    now = evaluation(12, bright=[0.6] * 4, ocr=[0.4, 0.46, 0.52, 0.78])
    lower = [evaluation(step, bright=[0.3] * 4, ocr=[0.4, 0.5, 0.6, 0.7]) for step in (4, 8)]
    assert find_fall([START], now, REWARDS, ["ocr"]).change.high < 0
    assert find_fall([START, *lower], now, REWARDS, ["ocr"]) is None
    assert corrected_level(1) == 0.95 and corrected_level(4) == pytest.approx(0.9875)
    narrow, wide = (estimate([-0.1, -0.14, -0.18, -0.02], paired=True, level=level) for level in (0.95, 0.9875))
    assert wide.low < narrow.low and wide.high > narrow.high and wide.mean == narrow.mean


def test_each_gold_reward_is_looked_at_on_the_prompts_it_applies_to():
    rewards = [*REWARDS, RewardSection(name="clip", weight=0)]
    start = evaluation(0, bright=[0.2] * 5, ocr=[None] * 5, clip=[None, 0.5, 0.6, 0.7, 0.9])
    now = evaluation(4, bright=[0.5] * 5, ocr=[None] * 5, clip=[0.9, 0.1, 0.2, 0.3, 0.4])
    fall = find_fall([start], now, rewards, ["ocr", "clip"])
    assert (fall.reward, fall.change.n, fall.trained.n, fall.level) == ("clip", 4, 5, 0.975)
    assert gold_changes(start, now, "clip") == pytest.approx({"1": -0.4, "2": -0.4, "3": -0.4, "4": -0.5})


def test_trained_rewards_count_with_their_weights_where_both_have_a_score():
    rewards = [RewardSection(name="a", weight=2), RewardSection(name="b", weight=-1), *REWARDS[1:]]
    before = evaluation(0, a=[0.1, 0.2, 0.3], b=[0.5, None, None], ocr=[0.5] * 3)
    now = evaluation(4, a=[0.2, 0.2, None], b=[0.6, 0.9, None], ocr=[0.1] * 3)
    assert list(trained_changes(before, now, rewards)) == pytest.approx([2 * 0.1 - 0.1, 0.0])


def test_checkpoints_compete_by_the_mean_of_the_gold_rewards():
    found = evaluation(4, bright=[0.9, 0.9], ocr=[0.2, 0.4], clip=[0.6, 0.6])
    assert gold_score(found, ["ocr"]) == pytest.approx(0.3)
    assert gold_score(found, ["ocr", "clip"]) == pytest.approx(0.45)
    assert gold_score(found, ["other"]) is None


def test_a_report_finds_what_the_run_was_told():
    """A rollback leaves a second evaluation of a step, a longer run one that was not due: neither is a comparison."""
    peak = evaluation(4, bright=[0.4] * 4, ocr=[0.86, 0.9, 1.0, 1.0])
    other = evaluation(6, bright=[0.4] * 4, ocr=[0.86, 0.9, 1.0, 1.0])
    now = evaluation(8, bright=[0.6] * 4, ocr=[0.5, 0.6, 0.7, 0.7])
    told = find_fall([START, peak], now, REWARDS, ["ocr"])
    assert find_falls([now, START, peak, other, peak], REWARDS, ["ocr"], 4) == [told]
    assert find_falls([START, peak, other], REWARDS, ["ocr"], 4) == []
    assert find_falls([START, now], REWARDS, ["ocr"], 5) == []  # the last one is judged, and is not below the start
    assert find_falls([START, peak, now], REWARDS, [], 4) == []


@pytest.mark.parametrize("num_prompts", [8, 64])
def test_runs_in_which_gold_does_not_move_are_seldom_stopped(num_prompts):
    """Ten evaluations of 200 runs whose gold is noise around the same mean: at most 5 % are stopped, give or take."""
    generator = np.random.default_rng(0)
    stopped = 0
    for _ in range(200):
        difficulty = generator.uniform(0.2, 0.8, num_prompts)
        known = []
        for step in range(11):
            gold = difficulty + generator.normal(0, 0.15, num_prompts)
            now = evaluation(step, bright=[step / 20] * num_prompts, ocr=gold.tolist())
            if find_fall(known, now, REWARDS, ["ocr"]):
                stopped += 1
                break
            known.append(now)
    assert stopped <= 16  # three standard errors above 5 %
