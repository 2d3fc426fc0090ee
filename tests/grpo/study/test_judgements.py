"""What goals allow and what is said about it, on comparisons written by hand: margins on both sides, ties, gaps."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from blip3o_grpo.configs.study import START, GoalSection
from blip3o_grpo.study.conclusions import conclude, label_candidates
from blip3o_grpo.study.goals import beats, best_of, describe, judge, listed, told_apart
from blip3o_grpo.study.matrix import Cell, Comparison, Matrix

MARGIN = 0.05


def compared(arm, name, difference, low=None, high=None, verdict="", against=START):
    suite, reward = name.split("/")
    return Comparison(arm, against, suite, reward, difference, low, high, 0.01, 0.02, verdict, 40, {0: difference})


def better(arm, name, difference=0.2, against=START):
    return compared(arm, name, difference, difference - 0.01, difference + 0.01, "better", against)


def worse(arm, name, difference=-0.2, against=START):
    return compared(arm, name, difference, difference - 0.01, difference + 0.01, "worse", against)


def same(arm, name, against=START):
    return compared(arm, name, 0.0, -0.01, 0.01, "", against)


def goal(name, margin=MARGIN):
    suite, reward = name.split("/")
    return GoalSection(suite=suite, reward=reward, margin=margin)


def matrix(
    against_baseline: Sequence[Comparison],
    between: Sequence[Comparison] = (),
    *,
    trained=(),
    seeds=None,
    arms=None,
    baseline=START,
    against_start=None,
) -> Matrix:
    """`trained`: (arm, reward) pairs; `seeds`: arm to number of runs."""
    arms = arms or [START, *dict.fromkeys(c.arm for c in against_baseline)]
    names = dict.fromkeys((c.suite, c.reward) for c in against_baseline)
    number = {arm: (seeds or {}).get(arm, 2) for arm in arms}
    cells = []
    for arm in arms:
        runs = dict.fromkeys(range(number[arm]), 0.5)
        for suite, reward in names:
            cells.append(Cell(arm, suite, reward, float((arm, reward) in trained), 0.5, 0.4, 0.6, 40, runs))
    from_start = list(against_baseline if against_start is None else against_start)
    return Matrix([], arms, baseline, cells, list(against_baseline), list(between), from_start)


TEXT, LOOK = "signs/exact", "signs/look"
GOALS = [goal(TEXT), goal(LOOK)]


def only(found, goals=GOALS, **options):
    (judgement,) = judge(matrix(found, **options), goals)
    return judgement


@pytest.mark.parametrize(("difference", "counts"), [(MARGIN - 1e-6, False), (MARGIN, True), (MARGIN + 1e-6, True)])
def test_a_gain_counts_from_the_margin_on(difference, counts):
    gain = compared("a", TEXT, difference, 0.01, 0.2, "better")
    assert bool(only([gain, same("a", LOOK)]).gains) is counts


@pytest.mark.parametrize(
    ("low", "falls"), [(-MARGIN - 1e-6, True), (-MARGIN, True), (-MARGIN + 1e-6, False), (None, True)]
)
def test_a_fall_is_excluded_by_an_interval_that_ends_above_the_margin(low, falls):
    judgement = only([better("a", TEXT), compared("a", LOOK, 0.0, low, 0.1)])
    assert [c.name for c in judgement.falls] == ([LOOK] if falls else [])
    assert judgement.eligible is not falls


def test_a_difference_that_was_not_shown_is_no_gain_however_large():
    judgement = only([compared("a", TEXT, 0.4, 0.1, 0.7, ""), same("a", LOOK)])
    assert not judgement.gains and not judgement.eligible
    assert judgement.reason == "no difference that matters is shown in any goal that it does not train on"


def test_what_an_arm_trains_on_is_its_own_gain_and_no_other_arms():
    found = [better("a", TEXT), same("a", LOOK), better("b", TEXT), same("b", LOOK)]
    own, other = judge(matrix(found, trained={("a", "exact")}), GOALS)
    assert not own.gains and [c.name for c in own.own_gains] == [TEXT] and not own.eligible
    assert own.reason.startswith(f"it is better only in {TEXT}, which it trains on")
    assert not other.own_gains and [c.name for c in other.gains] == [TEXT] and other.eligible and other.reason == ""


def test_a_gain_of_its_own_does_not_spoil_another_one():
    judgement = only([better("a", TEXT), better("a", LOOK)], trained={("a", "exact")})
    assert [c.name for c in judgement.own_gains] == [TEXT] and [c.name for c in judgement.gains] == [LOOK]
    assert judgement.eligible and judgement.reason == ""


def test_reasons_name_what_is_missing_before_what_falls():
    missing = only([better("a", TEXT), worse("a", LOOK)], [*GOALS, goal("shapes/geneval"), goal("shapes/look")])
    assert missing.missing == ["shapes/geneval", "shapes/look"] and not missing.eligible
    assert missing.reason == "it was not compared in shapes/geneval and shapes/look"
    falls = only([better("a", TEXT), worse("a", LOOK)])
    assert falls.gains and not falls.eligible
    assert falls.reason == "a fall that matters is not excluded in signs/look -0.200 (-0.210 to -0.190, n=40)"


def test_arms_that_were_not_compared_are_not_judged():
    found = matrix([better("a", TEXT)], arms=[START, "b", "a"])
    assert [judgement.arm for judgement in judge(found, GOALS)] == ["a"]


def test_an_arm_must_hold_against_the_untrained_policy_too_where_the_baseline_is_an_arm():
    """It may be better than a bad arm and worse than no training at all."""
    gained, kept = better("b", TEXT, against="a"), same("b", LOOK, against="a")
    start = [better("a", TEXT), worse("a", LOOK), better("b", TEXT), worse("b", LOOK)]
    found = matrix([gained, kept], arms=[START, "a", "b"], baseline="a", against_start=start)
    (judgement,) = judge(found, GOALS)
    assert (judgement.against, judgement.start.against) == ("a", START) and not judgement.eligible
    assert judgement.reason == (
        "against start, a fall that matters is not excluded in signs/look -0.200 (-0.210 to -0.190, n=40)"
    )
    untrained = better(START, TEXT, against="a")
    found = matrix([gained, kept, untrained], arms=[START, "a", "b"], baseline="a", against_start=start)
    assert [one.arm for one in judge(found, GOALS)] == ["b"]  # no training at all is no arm to recommend
    start[3] = same("b", LOOK)
    (judgement,) = judge(matrix([gained, kept], arms=[START, "a", "b"], baseline="a", against_start=start), GOALS)
    assert judgement.eligible and judgement.reason == ""
    (judgement,) = judge(matrix([better("a", TEXT), same("a", LOOK)]), GOALS)
    assert (judgement.against, judgement.start) == (START, None)


def test_arms_are_told_apart_by_any_verdict_in_a_goal():
    between = [same("a", TEXT, against="b"), worse("b", LOOK, against="c"), better("a", "signs/ned", against="b")]
    assert not told_apart(matrix(THREE, between), GOALS, ["a", "b"])
    assert told_apart(matrix(THREE, between), GOALS, ["a", "b", "c"])
    assert told_apart(matrix(THREE, between), [goal("signs/ned")], ["a", "b"])


def test_words_for_comparisons_and_lists():
    assert describe(better("a", TEXT, 0.25)) == "signs/exact +0.250 (+0.240 to +0.260, n=40)"
    assert describe(compared("a", TEXT, -0.1)) == "signs/exact -0.100 (no interval, n=40)"
    assert describe(compared("a", TEXT, 0.1, 0.0, None)) == "signs/exact +0.100 (no interval, n=40)"
    assert describe(compared("a", TEXT, 0.1, None, 0.2)) == "signs/exact +0.100 (no interval, n=40)"
    assert [listed(items) for items in (["a"], ["a", "b"], ["a", "b", "c"])] == ["a", "a and b", "a, b and c"]


THREE = [c for arm in "abc" for c in (better(arm, TEXT), same(arm, LOOK))]


def test_an_arm_beats_another_by_a_goal_it_does_not_train_on_and_falls_in_none():
    between = [better("a", TEXT, against="b"), same("a", LOOK, against="b")]
    assert beats(matrix(THREE, between), GOALS, "a", "b") and not beats(matrix(THREE, between), GOALS, "b", "a")
    assert not beats(matrix(THREE, between, trained={("a", "exact")}), GOALS, "a", "b")
    assert beats(matrix(THREE, between, trained={("b", "exact"), ("a", "look")}), GOALS, "a", "b")
    assert not beats(matrix(THREE, between), [goal(LOOK)], "a", "b")  # not in a goal
    mixed = [better("a", TEXT, against="b"), worse("a", LOOK, against="b")]
    assert not beats(matrix(THREE, mixed), GOALS, "a", "b") and not beats(matrix(THREE, mixed), GOALS, "b", "a")
    seen_from_b = [worse("b", TEXT, against="a"), same("b", LOOK, against="a")]
    assert beats(matrix(THREE, seen_from_b), GOALS, "a", "b")


def test_the_best_are_those_that_nobody_beats():
    between = [better("a", TEXT, against="b"), same("a", TEXT, against="c"), same("b", TEXT, against="c")]
    assert best_of(matrix(THREE, between), GOALS, ["a", "b", "c"]) == ["a", "c"]
    assert best_of(matrix(THREE, between), GOALS, ["b", "c"]) == ["b", "c"]
    circle = [better("a", TEXT, against="b"), better("b", TEXT, against="c"), better("c", TEXT, against="a")]
    assert best_of(matrix(THREE, circle), GOALS, ["a", "b", "c"]) == ["a", "b", "c"]
    assert best_of(matrix(THREE, between), GOALS, []) == []


def test_findings_say_better_worse_and_open_in_this_order():
    found = [
        *(better("a", TEXT), worse("a", LOOK), same("a", "signs/ned")),
        *(worse("b", TEXT), same("b", LOOK)),
        *(same("c", TEXT), same("c", LOOK)),
    ]
    conclusions = conclude(matrix(found, trained={("a", "exact"), ("b", "look")}), ["a", "b", "c"], GOALS)
    first, second, third = conclusions.findings
    assert first.text == (
        "better than start in signs/exact +0.200 (+0.190 to +0.210, n=40); worse in signs/look -0.200 (-0.210 to "
        "-0.190, n=40); no difference shown in signs/ned."
    )
    assert first.suspicious == (
        "exact was trained on and rose while signs/look fell: a sign of reward hacking, look at the pictures"
    )
    assert second.text.startswith("worse than start in signs/exact -0.200") and not second.suspicious
    assert second.text.endswith("; no difference shown in signs/look.")
    assert (third.text, third.suspicious) == ("no difference shown in signs/exact and signs/look.", "")
    assert [finding.arm for finding in conclusions.findings] == ["a", "b", "c"]


def test_a_sign_of_hacking_needs_a_trained_reward_that_rose_and_another_that_fell():
    def suspicious(*found, trained=frozenset({("a", "exact")})):
        return conclude(matrix(found, trained=trained), ["a"], GOALS).findings[0].suspicious

    assert suspicious(better("a", TEXT), worse("a", LOOK))
    assert not suspicious(better("a", TEXT), same("a", LOOK))
    assert not suspicious(worse("a", TEXT), worse("a", LOOK))
    assert not suspicious(better("a", TEXT), worse("a", LOOK), trained=frozenset())
    both = suspicious(better("a", TEXT), better("a", "shapes/exact"), worse("a", LOOK))
    assert both.startswith("exact was trained on")  # one reward on two suites


def recommended(found, between=(), goals=GOALS, planned=None, **options):
    return conclude(matrix(found, between, **options), planned or list(dict.fromkeys(c.arm for c in found)), goals)


def test_the_only_arm_that_is_left_is_recommended_and_the_others_are_refused_with_reasons():
    found = [better("a", TEXT), same("a", LOOK), better("b", TEXT), worse("b", LOOK)]
    conclusions = recommended(found)
    assert (conclusions.recommended, conclusions.candidates) == ("a", ["a"])
    assert conclusions.recommendation == [
        "Train with a. What counts are the goals signs/exact (margin 0.05) and signs/look (margin 0.05).",
        "a is better than start in signs/exact +0.200 (+0.190 to +0.210, n=40), and in no goal is a fall by more than "
        "the margin left open.",
        "Not b: a fall that matters is not excluded in signs/look -0.200 (-0.210 to -0.190, n=40).",
    ]


def test_a_beaten_arm_is_named_with_what_beat_it():
    found = [better("a", TEXT, 0.4), same("a", LOOK), better("b", TEXT), same("b", LOOK)]
    between = [worse("b", TEXT, against="a"), same("b", LOOK, against="a")]
    conclusions = recommended(found, between)
    assert conclusions.recommended == "a"
    assert conclusions.recommendation[2:] == ["a is better than b in signs/exact +0.200 (+0.190 to +0.210, n=40)."]


def test_arms_that_were_not_told_apart_have_no_winner_and_each_pair_is_named():
    between = [same("b", TEXT, against="a"), better("c", LOOK, against="a"), worse("c", TEXT, against="a")]
    conclusions = recommended(THREE, between)
    assert conclusions.recommended is None and conclusions.candidates == ["a", "b", "c"]
    text = conclusions.recommendation
    assert text[0].startswith("Train with a or b or c. What counts")
    assert [line.split(" is better")[0] for line in text[1:4]] == ["a", "b", "c"]
    assert text[4:] == [
        "Between a and b no difference was shown in any goal: this study gives no reason to prefer one to the other.",
        "a is better than c in signs/exact +0.200 (+0.190 to +0.210, n=40); a is worse than c in signs/look -0.200 "
        "(-0.210 to -0.190, n=40).",
        "Between b and c no difference was shown in any goal: this study gives no reason to prefer one to the other.",
    ]


def labels(between, arms, goals=GOALS):
    """What the tables of a study's page write beside each arm that the goals leave."""
    found = matrix([c for c in THREE if c.arm in arms], between)
    return label_candidates(found, goals, conclude(found, arms, goals))


def test_a_label_says_recommended_of_one_arm_only_and_else_what_was_not_shown():
    one = [better("a", TEXT, against="b"), same("a", LOOK, against="b")]
    assert labels(one, ["a", "b"]) == {"a": "recommended"}
    equal = [same("a", TEXT, against="b"), same("a", LOOK, against="b")]
    text = "no difference shown between a and b"
    assert labels(equal, ["a", "b"]) == {"a": text, "b": text}
    mixed = [better("a", TEXT, against="b"), worse("a", LOOK, against="b")]
    text = "no winner between a and b"
    assert labels(mixed, ["a", "b"]) == {"a": text, "b": text}
    assert labels(mixed, ["a", "b"], [goal(TEXT)]) == {"a": "recommended"}
    nobody = matrix([same("a", TEXT), same("a", LOOK)])
    assert label_candidates(nobody, GOALS, conclude(nobody, ["a"], GOALS)) == {}


def test_measures_that_are_no_goals_do_not_tell_arms_apart():
    between = [better("a", LOOK, against="b"), same("a", TEXT, against="b")]
    conclusions = recommended([*THREE[:4]], between, [goal(TEXT)])
    assert conclusions.candidates == ["a", "b"] and "Between a and b" in conclusions.recommendation[-1]


def test_nothing_is_recommended_without_an_arm_or_a_goal_that_is_left():
    nobody = recommended([same("a", TEXT), same("a", LOOK), worse("b", TEXT), same("b", LOOK)])
    assert (nobody.recommended, nobody.candidates) == (None, [])
    assert nobody.recommendation == [
        "Nothing is recommended. Against start, in the goals signs/exact (margin 0.05) and signs/look (margin 0.05):",
        "a: no difference that matters is shown in any goal that it does not train on.",
        "b: a fall that matters is not excluded in signs/exact -0.200 (-0.210 to -0.190, n=40).",
    ]
    (sentence,) = recommended([better("a", TEXT)], goals=[]).recommendation
    assert sentence.startswith("Nothing is recommended, as no goal is left: every reward that is measured")
    assert sentence.endswith("with a measure that no arm trains on.")


def test_missing_runs_are_told():
    found = [better("a", TEXT), same("a", LOOK), same("b", TEXT), same("b", LOOK)]

    def caveats(planned=("a", "b"), **options):
        said = recommended(found, planned=list(planned), **options).recommendation
        return [line for line in said if line.startswith(("Not compared", "Every arm", "Only one run"))]

    assert caveats() == []
    assert caveats(("a", "b", "c", "d")) == ["Not compared, because no run of it has finished: c and d."]
    assert caveats(seeds={"b": 1, START: 1}) == [
        "Only one run has finished of b: how much seeds differ is taken from the other arms."
    ]
    (one,) = caveats(seeds={"a": 1, "b": 1})
    assert one.startswith("Every arm was trained with one seed only: the differences are those of these runs")
    assert one.endswith("may differ otherwise.")
    assert caveats(seeds={"a": 2, "b": 3, START: 1}) == []  # the untrained policy was not trained at all
