"""What is recommended and what never is, on simulated studies: paid-for measures rise, goals decide."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from blip3o_grpo.configs.study import START, GoalSection
from blip3o_grpo.study.conclusions import conclude, label_candidates
from blip3o_grpo.study.matrix import Cell, Column, Matrix, compare
from tests.grpo.study.simulated import scored

OCR = GoalSection(suite="signs", reward="ocr")
EXACT = GoalSection(suite="signs", reward="exact")
SHAPES = GoalSection(suite="signs", reward="shapes")


def study(effects, trained, *, seed=0, num_prompts=52, seed_sd=0.0, baseline=START):
    """The matrix of a study with these effects: arm to measure to effect; `trained`: arm to its rewards."""
    scores = scored({START: {}, **effects}, num_prompts=num_prompts, seed_sd=seed_sd, seed=seed, num_seeds=3)
    ids = tuple(next(iter(scores[START].values())).per_prompt)
    names = next(iter(effects.values()))
    columns = [Column("signs", name, ids) for name in names]
    arms = list(effects)
    cells = [
        Cell(arm, "signs", name, float(name in trained.get(arm, ())), 0.5, 0.4, 0.6, num_prompts, {0: 0.5, 1: 0.5})
        for arm in (START, *arms)
        for name in names
    ]
    pairs = [(b, a) for i, a in enumerate(arms) for b in arms[i + 1 :]]
    return Matrix(
        columns,
        [START, *arms],
        baseline,
        cells,
        compare([(arm, baseline) for arm in (START, *arms) if arm != baseline], columns, scores, "holm"),
        compare(pairs, columns, scores, "holm"),
        compare([(arm, START) for arm in arms], columns, scores, "holm"),
    )


def conclusions(effects, trained, goals, **options):
    return conclude(study(effects, trained, **options), list(effects), goals)


PAID = {"ocr": ("ocr",), "ocr_bright": ("ocr", "bright"), "bright": ("bright",)}
ARMS = {
    "ocr": {"ocr": 0.2, "exact": 0.2, "bright": 0.0},
    "ocr_bright": {"ocr": 0.15, "exact": 0.05, "bright": 0.15},
    "bright": {"ocr": -0.15, "exact": -0.15, "bright": 0.2},
}


def test_brightness_that_is_paid_for_wins_nothing():
    """The arm with more measures was recommended once: +.15 of letters and +.15 of brightness against +.20."""
    for seed in range(2):
        found = conclusions(ARMS, PAID, [EXACT], seed=seed)
        assert found.recommended == "ocr"
        text = " ".join(found.recommendation)
        assert "Not bright: a fall that matters is not excluded in signs/exact -0." in text
        suspicious = next(finding.suspicious for finding in found.findings if finding.arm == "bright")
        assert "bright was trained on and rose while signs/ocr and signs/exact fell" in suspicious


def test_an_arms_own_reward_does_not_count_for_it_alone():
    found = conclusions(ARMS, PAID, [OCR])
    assert found.recommended is None and found.candidates == []
    assert any(
        line.startswith("ocr: it is better only in signs/ocr, which it trains on") for line in found.recommendation
    )
    both = conclusions(ARMS, PAID, [OCR, EXACT])
    assert both.recommended == "ocr"


def test_without_a_goal_nothing_is_recommended():
    found = conclusions(ARMS, PAID, [])
    assert found.recommended is None and len(found.recommendation) == 1
    assert found.recommendation[0].startswith("Nothing is recommended, as no goal is left")


def test_a_fall_in_one_goal_forbids_what_a_gain_in_another_would_allow():
    effects = {"a": {"exact": 0.3, "shapes": -0.1}}
    found = conclusions(effects, {"a": ("ocr",)}, [EXACT, SHAPES])
    assert found.recommended is None and "a fall that matters is not excluded in signs/shapes -0." in str(found)
    small = {"a": {"exact": 0.3, "shapes": -0.02}}
    wide = [EXACT, GoalSection(suite="signs", reward="shapes", margin=0.1)]
    assert conclusions(small, {"a": ("ocr",)}, wide).recommended == "a"


def test_few_prompts_exclude_no_fall():
    found = conclusions({"a": {"exact": 0.3, "shapes": 0.0}}, {}, [EXACT, SHAPES], num_prompts=4)
    assert found.recommended is None and "a fall that matters is not excluded in" in str(found)
    none = conclusions({"a": {"exact": 0.3, "shapes": 0.0}}, {}, [EXACT, SHAPES], num_prompts=3)
    assert none.recommended is None and "(no interval, n=3)" in str(none.recommendation)


def test_a_goal_that_was_not_compared_forbids_a_recommendation():
    found = conclusions({"a": {"exact": 0.3}}, {}, [EXACT, SHAPES])
    assert found.recommended is None and "it was not compared in signs/shapes" in str(found.recommendation)


def test_a_gain_below_the_margin_does_not_count():
    effects = {"a": {"exact": 0.1}}
    assert conclusions(effects, {}, [EXACT]).recommended == "a"
    assert conclusions(effects, {}, [EXACT.model_copy(update={"margin": 0.2})]).recommended is None


def test_there_is_no_winner_between_arms_that_were_not_told_apart():
    effects = {"a": {"exact": 0.2}, "b": {"exact": 0.2}, "c": {"exact": 0.07}}
    found = conclusions(effects, {}, [EXACT])
    assert found.recommended is None and found.candidates == ["a", "b"]
    text = " ".join(found.recommendation)
    assert text.startswith("Train with a or b.") and "Between a and b no difference was shown in any goal" in text
    assert "a is better than c in signs/exact" in text


def test_each_better_in_another_goal_is_no_winner_either():
    effects = {"a": {"exact": 0.3, "shapes": 0.0}, "b": {"exact": 0.0, "shapes": 0.3}}
    found = conclusions(effects, {}, [EXACT, SHAPES])
    assert found.candidates == ["a", "b"]
    words = label_candidates(study(effects, {}), [EXACT, SHAPES], found)
    assert words == dict.fromkeys("ab", "no winner between a and b")
    assert any(
        line.startswith("a is better than b in signs/exact") and "a is worse than b in signs/shapes" in line
        for line in found.recommendation
    )


def test_to_do_no_harm_where_the_baseline_did_some_is_no_reason_to_train():
    effects = {"bright": {"exact": -0.2}, "hash": {"exact": 0.0}, "good": {"exact": 0.2}}
    found = conclusions(effects, {}, [EXACT], baseline="bright")
    assert found.recommended == "good"
    text = " ".join(found.recommendation)
    assert "Not hash: against start, a fall that matters is not excluded" in text or (
        "Not hash: against start, no difference that matters is shown in any goal that it does not train on." in text
    )


def test_of_three_arms_only_the_beaten_one_goes():
    """a beats c; b is told apart from neither."""
    matrix = study({"a": {"exact": 0.2}, "b": {"exact": 0.2}, "c": {"exact": 0.2}}, {})
    told = [
        replace(c, difference=c.difference if {c.arm, c.against} != {"a", "c"} else 0.1 if c.arm == "a" else -0.1)
        for c in matrix.between_arms
    ]
    told = [
        replace(c, verdict="" if {c.arm, c.against} != {"a", "c"} else "better" if c.arm == "a" else "worse")
        for c in told
    ]
    matrix = replace(matrix, between_arms=told)
    found = conclude(matrix, ["a", "b", "c"], [EXACT])
    assert found.recommended is None and found.candidates == ["a", "b"]
    assert any("Between a and b no difference was shown" in line for line in found.recommendation)
    assert label_candidates(matrix, [EXACT], found) == dict.fromkeys("ab", "no difference shown between a and b")


def test_arms_that_are_the_same_are_not_told_apart():
    """Not even by a bit: differences of exactly 0, with one seed and with three."""
    matrix = study({"a": {"exact": 0.2}, "b": {"exact": 0.2}}, {})
    for num_seeds in (1, 3):
        rows = {f"p{i}": {"exact": 0.1 * (i % 7)} for i in range(20)}
        same = {seed: SimpleNamespace(per_prompt=rows) for seed in range(num_seeds)}
        (found,) = compare([("b", "a")], [Column("signs", "exact", tuple(rows))], {"a": same, "b": same}, "holm")
        assert (found.difference, found.verdict, found.p) == (0, "", 1)
        assert found.low < 0 < found.high
        both = conclude(replace(matrix, between_arms=[found]), ["a", "b"], [EXACT])
        assert both.recommended is None and both.candidates == ["a", "b"]


def test_one_prompt_shows_nothing():
    found = conclusions({"a": {"exact": 0.5}}, {}, [EXACT], num_prompts=1)
    assert found.recommended is None and found.candidates == []
    assert found.findings[0].text == "no difference shown in signs/exact."
    assert "(no interval, n=1)" in found.recommendation[1]


HACKS = {
    "bright": {"exact": -0.05, "shapes": 0.0, "bright": 0.4, "long": 0.0, "hash": 0.0},
    "long": {"exact": 0.0, "shapes": -0.05, "bright": 0.0, "long": 0.4, "hash": 0.0},
    "hash": {"exact": 0.0, "shapes": 0.0, "bright": 0.0, "long": 0.0, "hash": 0.4},
}
"""Rewards that pay for brightness, for long text and for a hash of the image: what they move, and what they cost."""


def check_hacks(num_studies):
    paid = {name: (name,) for name in HACKS}
    own = [GoalSection(suite="signs", reward=name) for name in HACKS]
    for seed in range(num_studies):
        for goals in ([EXACT, SHAPES], [*own, EXACT, SHAPES]):
            found = conclusions(HACKS, paid, goals, seed=seed, seed_sd=0.02)
            assert not set(found.candidates) & set(HACKS), (seed, found.recommendation)


def test_a_planted_hack_is_never_recommended():
    check_hacks(3)


@pytest.mark.slow
def test_a_planted_hack_is_never_recommended_in_many_studies():
    check_hacks(200)


def test_a_good_arm_beside_the_hacks_is_found_in_nearly_every_study():
    effects = {**HACKS, "good": {"exact": 0.15, "shapes": 0.02, "bright": 0.0, "long": 0.0, "hash": 0.0}}
    goals = [EXACT, GoalSection(suite="signs", reward="shapes", margin=0.1)]
    found = [conclusions(effects, {name: (name,) for name in HACKS}, goals, seed=seed).recommended for seed in range(4)]
    assert np.mean([name == "good" for name in found]) >= 0.75 and set(found) <= {"good", None}
