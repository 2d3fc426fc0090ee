"""The matrix of a study on a handful of scores: which prompts, seeds and pairs count, and each number by hand."""

from __future__ import annotations

import csv
import io
from types import SimpleNamespace

import numpy as np
import pytest

from blip3o_grpo.configs import RewardSection
from blip3o_grpo.configs.study import START, ArmSection
from blip3o_grpo.evaluation.heldout import Evaluation
from blip3o_grpo.evaluation.multiple_comparisons import correct
from blip3o_grpo.evaluation.statistics import paired_bootstrap, seed_spread
from blip3o_grpo.study.matrix import (
    Column,
    Comparison,
    as_csv,
    build_matrix,
    compare,
    make_cells,
    make_columns,
    read_scores,
    values,
    verdict,
)

IDS = tuple(f"p{i}" for i in range(8))
OCR = Column("signs", "ocr", IDS)
LEVEL = np.linspace(0.2, 0.5, 8)
WIGGLE = np.array([1, -1, 1, -1, 1, -1, 1, -1]) * 0.01


def run(effect=0.0, wiggle=0.0, **others):
    """Held-out scores of one run: `LEVEL` plus an effect."""
    scores = LEVEL + effect + wiggle * WIGGLE
    return SimpleNamespace(
        per_prompt={name: {"ocr": float(score), "look": 0.5, **others} for name, score in zip(IDS, scores, strict=True)}
    )


SCORES = {
    START: {0: run(), 1: run(0.02, -1), 2: run(0.01)},
    "a": {0: run(0.3, 1), 1: run(0.34, 2)},
    "b": {1: run(0.1), 2: run(0.12, 3)},
}


def plan(*, baseline="none", correction="holm", weights=None):
    weights = weights or {"a": {"ocr": 1.0}, "b": {"look": 0.5}}
    arms = [ArmSection(name=name, weights=given) for name, given in weights.items()]
    prompts = [SimpleNamespace(id=name) for name in IDS]
    return SimpleNamespace(
        study=SimpleNamespace(arms=arms, baseline=baseline, correction=correction),
        base=SimpleNamespace(rewards=[RewardSection(name="ocr"), RewardSection(name="look", type="mine:Look")]),
        suites={"signs": prompts, "few": prompts[:2]},
    )


def test_scores_are_read_of_finished_trials_and_the_untrained_policys_once_for_each_seed(tmp_path):
    def trial(arm, seed, before, after, finished=True):
        folder = tmp_path / f"{arm}-{seed}"
        folder.mkdir()
        for name, score in (("before", before), ("after", after)):
            Evaluation(0, 1, 1, {}, {}, {"p0": {"ocr": score}}).save(folder / f"{name}.json")
        paths = SimpleNamespace(evaluations=folder)
        return SimpleNamespace(name=f"{arm}/{seed}", arm=arm, seed=seed, finished=finished, folder=paths)

    trials = [
        trial("a", 0, 0.125, 0.25),
        trial("a", 1, 0.5, 0.625),
        trial("b", 0, 0.75, 0.875),  # the same start with the same seed, measured again
        trial("b", 1, 0.5, 0.375, finished=False),
        trial("c", 2, 0.0, 1.0),
    ]

    def scores(left_out=()):
        read = read_scores(SimpleNamespace(trials=trials), left_out)
        return {
            arm: {seed: found.per_prompt["p0"]["ocr"] for seed, found in runs.items()} for arm, runs in read.items()
        }

    everything = {START: {0: 0.125, 1: 0.5, 2: 0.0}, "a": {0: 0.25, 1: 0.625}, "b": {0: 0.875}, "c": {2: 1.0}}
    assert scores() == everything
    assert scores(["c/2", "a/0"]) == {START: {0: 0.75, 1: 0.5}, "a": {1: 0.625}, "b": {0: 0.875}}
    assert scores([one.name for one in trials]) == {START: {}}


def test_columns_are_suites_times_rewards_on_prompts_that_every_run_has_a_score_for():
    columns = make_columns(plan(), SCORES)
    assert [(column.name, len(column.prompt_ids)) for column in columns] == [
        ("signs/ocr", 8), ("signs/look", 8), ("few/ocr", 2), ("few/look", 2)
    ]  # fmt: skip
    gaps = {**SCORES, "a": {0: run(0.3), 1: run(0.3)}}
    gaps["a"][1].per_prompt["p0"]["ocr"] = None
    del gaps["a"][1].per_prompt["p1"]
    found = {column.name: column.prompt_ids for column in make_columns(plan(), gaps)}
    assert found == {"signs/ocr": IDS[2:], "signs/look": (IDS[0], *IDS[2:]), "few/look": (IDS[0],)}


def test_a_score_of_zero_is_a_score():
    zero = {START: {0: run(-1.0)}, "a": {0: run()}}
    for row in zero[START][0].per_prompt.values():
        row["ocr"] = 0.0
    assert make_columns(plan(), zero)[0].prompt_ids == IDS


def test_values_are_prompts_by_seeds():
    table = values(SCORES, "a", OCR, [0, 1])
    assert table.shape == (8, 2)
    assert table[:, 1] == pytest.approx(LEVEL + 0.34 + 2 * WIGGLE)


def test_cells_are_means_over_prompts_and_seeds_with_the_weight_of_training():
    cells = make_cells([START, "a", "b"], OCR, SCORES, {"a": {"ocr": 1.0}, "b": {"look": 0.5}})
    assert [(cell.arm, cell.weight, cell.num_prompts) for cell in cells] == [(START, 0, 8), ("a", 1, 8), ("b", 0, 8)]
    assert [cell.mean for cell in cells] == pytest.approx([LEVEL.mean() + shift for shift in (0.01, 0.32, 0.11)])
    assert cells[1].seeds == pytest.approx({0: LEVEL.mean() + 0.3, 1: LEVEL.mean() + 0.34})
    assert list(cells[2].seeds) == [1, 2]
    assert all(0 <= cell.low < cell.mean < cell.high <= 1 for cell in cells)  # of shares, not of differences


def test_the_untrained_policy_has_no_spread_of_seeds_and_arms_have():
    apart = {START: SCORES[START], "a": {0: run(0.1), 1: run(0.4)}}
    start, arm = make_cells([START, "a"], OCR, apart, {})
    assert arm.high - arm.low > 2 * (start.high - start.low)
    tables = [values(apart, name, OCR, sorted(apart[name])) for name in (START, "a")]
    spread = seed_spread(tables[1:], 1)
    expected = paired_bootstrap(tables, type(spread)([0.0, *spread.variances], spread.degrees), paired=False)
    assert [(cell.low, cell.high) for cell in (start, arm)] == [(one.low, one.high) for one in expected]


def test_comparisons_pair_prompts_and_the_seeds_that_both_have():
    found = compare([("a", START), ("b", START), ("b", "a")], [OCR], SCORES, "holm")
    assert [(c.arm, c.against, list(c.seeds)) for c in found] == [
        ("a", START, [0, 1]), ("b", START, [1, 2]), ("b", "a", [1])
    ]  # fmt: skip
    assert found[0].difference == pytest.approx((0.3 + 0.32) / 2)
    assert found[0].seeds == pytest.approx({0: 0.3, 1: 0.32})
    assert found[2].difference == pytest.approx(0.1 - 0.34)
    tables = [values(SCORES, a, OCR, s) - values(SCORES, b, OCR, s)
              for a, b, s in (("a", START, [0, 1]), ("b", START, [1, 2]), ("b", "a", [1]))]  # fmt: skip
    expected = paired_bootstrap(tables, seed_spread(tables, 2))  # two of three differences say it all
    assert [(c.low, c.high, c.p) for c in found] == [(one.low, one.high, one.p) for one in expected]
    assert [c.p_adjusted for c in found] == correct([c.p for c in found], "holm")
    assert all(c.num_prompts == 8 and c.name == "signs/ocr" for c in found)


def test_pairs_without_a_common_seed_are_left_out():
    apart = {"a": {0: run()}, "b": {1: run()}}
    assert compare([("a", "b")], [OCR], apart, "holm") == []
    assert compare([], [OCR], apart, "holm") == []
    three = {**apart, START: {0: run(), 1: run()}}
    assert [c.arm for c in compare([("a", "b"), ("a", START)], [OCR], three, "holm")] == ["a"]


@pytest.mark.parametrize("method", ["holm", "benjamini_hochberg"])
def test_all_columns_are_corrected_together(method):
    look = Column("signs", "look", IDS)
    alike = {START: {0: run(), 1: run()}, "a": {0: run(0.3, 1), 1: run(0.3, 2)}, "b": {0: run(0.2), 1: run(0.2, 3)}}
    found = compare([("a", START), ("b", START)], [OCR, look], alike, method)
    assert [(c.arm, c.reward) for c in found] == [("a", "ocr"), ("b", "ocr"), ("a", "look"), ("b", "look")]
    assert [c.p_adjusted for c in found] == correct([c.p for c in found], method)
    assert [c.verdict for c in found] == ["better", "better", "", ""]


@pytest.mark.parametrize(
    ("difference", "p", "seeds", "said"),
    [
        (0.2, 0.049, [0.1, 0.3], "better"),
        (-0.2, 0.049, [-0.1, -0.3], "worse"),
        (0.2, 0.05, [0.1, 0.3], ""),
        (0.2, 0.01, [0.5, -0.1], ""),
        (-0.2, 0.01, [-0.5, 0.1], ""),
        (0.2, 0.01, [0.4, 0.0], ""),  # a seed that shows nothing does not agree
        (0.0, 0.01, [0.1, -0.1], ""),
    ],
)
def test_a_verdict_needs_the_correction_and_every_seed(difference, p, seeds, said):
    assert verdict(difference, p, seeds) == said


def test_the_matrix_compares_with_the_baseline_and_every_pair_of_trained_arms():
    found = build_matrix(plan(), SCORES)
    assert (found.arms, found.baseline) == ([START, "a", "b"], START)
    assert {(c.arm, c.against) for c in found.against_baseline} == {("a", START), ("b", START)}
    assert {(c.arm, c.against) for c in found.between_arms} == {("b", "a")}
    assert found.against_start == found.against_baseline
    assert len(found.cells) == 12
    assert found.cell("b", OCR).seeds.keys() == {1, 2}
    assert found.cell("b", Column("signs", "look", IDS)).weight == 0.5
    assert found.comparison("b", OCR).difference == pytest.approx((0.08 + 0.11) / 2)
    assert found.comparison("b", Column("few", "ocr", IDS)).suite == "few"
    assert found.comparison(START, OCR) is None


def test_an_arm_may_be_the_baseline_and_one_without_a_finished_run_may_not():
    with_a = build_matrix(plan(baseline="a"), SCORES)
    assert with_a.baseline == "a"
    assert {(c.arm, c.against) for c in with_a.against_baseline} == {(START, "a"), ("b", "a")}
    assert {(c.arm, c.against) for c in with_a.against_start} == {("a", START), ("b", START)}
    without = build_matrix(plan(baseline="a"), {START: SCORES[START], "b": SCORES["b"]})
    assert (without.arms, without.baseline) == ([START, "b"], START)
    assert build_matrix(plan(), {START: {}}) is None


def test_a_comparison_of_arms_can_be_seen_from_either():
    found = build_matrix(plan(), SCORES)
    (seen,) = (c for c in found.between("a", "b") if c.name == "signs/ocr")
    (given,) = (c for c in found.between("b", "a") if c.name == "signs/ocr")
    assert (given.arm, given.against, seen.arm, seen.against) == ("b", "a", "a", "b")
    assert (seen.difference, seen.low, seen.high) == (-given.difference, -given.high, -given.low)
    assert seen.seeds == {1: -given.seeds[1]} and (seen.p, seen.p_adjusted) == (given.p, given.p_adjusted)
    assert len(found.between("a", "b")) == 4 and found.between("a", START) == []


def test_reversed_turns_the_verdict_and_keeps_what_is_not_known():
    def one(verdict, low=0.1, high=0.3):
        return Comparison("a", "b", "signs", "ocr", 0.2, low, high, 0.01, 0.02, verdict, 8, {0: 0.2})

    assert [one(said).reversed().verdict for said in ("better", "worse", "")] == ["worse", "better", ""]
    open_ = one("", None, None).reversed()
    assert (open_.low, open_.high) == (None, None)
    assert one("better").reversed().reversed() == one("better")


def test_rows_as_csv_have_a_column_for_each_seed():
    found = compare([("a", START), ("b", START)], [OCR], SCORES, "holm")
    text = as_csv(found)
    assert "\r" not in text
    rows = list(csv.DictReader(io.StringIO(text)))
    assert list(rows[0])[:5] == ["arm", "against", "suite", "reward", "difference"]
    assert list(rows[0])[-3:] == ["seed_0", "seed_1", "seed_2"] and "seeds" not in rows[0]
    assert float(rows[0]["difference"]) == found[0].difference and float(rows[0]["seed_1"]) == found[0].seeds[1]
    assert (rows[0]["seed_2"], rows[1]["seed_0"]) == ("", "")
    assert [line.split(",")[0] for line in text.splitlines()] == ["arm", "a", "b"] and text.endswith("\n")
    assert as_csv(found[1:]).splitlines()[0].endswith(",seed_1,seed_2")  # one row
    assert as_csv([]) == ""
