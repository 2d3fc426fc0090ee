"""Results of benchmarks: numbers and intervals by hand, saved and read again, and what is never compared."""

import json
from dataclasses import replace

import pytest
from pydantic import TypeAdapter

from blip3o_grpo.configs import ConfigError
from blip3o_grpo.evaluation.benchmark_result import (
    BenchmarkReport,
    BenchmarkResult,
    Subset,
    check_comparable,
    column_estimate,
    compare,
    draw_subset,
    load_result,
    part_of,
    scope_note,
)
from blip3o_grpo.evaluation.statistics import estimate
from blip3o_grpo.rewards.benchmarks import BenchmarkPrompt, Column, mean_column, pooled_column
from blip3o_grpo.rewards.judge.usage import Usage, total
from blip3o_grpo.run.files import RunFileError

NAMES = [f"p{index}" for index in range(6)]
VALUES = dict(zip(NAMES, (0.1, 0.9, 0.4, 0.5, 0.7, 0.2), strict=True))
COLUMN = {"name": "a", "title": "A", "strata": {"": {"p0": 0.5}}, "weights": {"": 1}}
STRATA = {"one": dict(list(VALUES.items())[:3]), "two": dict(list(VALUES.items())[3:])}


def result(policy="runs/a", **changes):
    values = {
        "suite": "dpg",
        "policy": policy,
        "judge": {"model": "m", "version": "1"},
        "data": {"file": "d.csv", "digest": "abc", "prompts": 6, "official": 6},
        "protocol": {"skip_first_row": False},
        "subset": None,
        "images_per_prompt": 4,
        "prompts": NAMES,
        "columns": [
            mean_column("entity", "Entity", VALUES),
            Column("overall", "Overall", STRATA, {"one": 0.7, "two": 0.3}),
        ],
        "usage": Usage(answers=3, calls=2, cached=1, tokens_in=7, tokens_out=2, cost=0.5),
        "notes": ["said"],
    }
    return BenchmarkResult(**{**values, **changes})


def test_numbers_are_the_columns_and_intervals_those_of_the_one_module():
    found = result().estimates()
    assert found["entity"] == estimate(list(VALUES.values()))
    assert found["overall"].mean == pytest.approx(0.7 * (1.4 / 3) + 0.3 * (1.4 / 3))
    assert found["overall"].n == 6 and found["overall"].low < found["overall"].mean < found["overall"].high


def test_a_weighted_interval_is_that_of_weighted_values():
    weighted = [[1.4 * v for v in STRATA["one"].values()], [0.6 * v for v in STRATA["two"].values()]]
    found, plain = column_estimate(result().columns[1]), estimate(*weighted)
    assert found == replace(plain, low=max(plain.low, 0.0), high=min(plain.high, 1.0))
    differences = Column(
        "x", "X", {name: {p: v - 0.9 for p, v in STRATA[name].items()} for name in STRATA}, {"one": 0.5, "two": 0.5}
    )
    assert column_estimate(differences, paired=True) == estimate(
        *([v - 0.9 for v in values.values()] for values in STRATA.values()), paired=True
    )


def test_intervals_of_shares_stay_within_them():
    high = pooled_column("x", "X", {"a": (9, 10), "b": (1, 1), "c": (1, 1), "d": (10, 10), "e": (3, 3)})
    assert column_estimate(high).high == 1.0
    low = replace(high, strata={"": {name: 1 - value for name, value in high.strata[""].items()}})
    assert column_estimate(low).low == 0.0


def test_a_result_is_read_again_as_it_was(tmp_path):
    file = tmp_path / "r.json"
    first = result(subset=Subset(6, 3))
    file.write_text(json.dumps(first.to_dict()))
    assert load_result(file) == first
    file.write_text(
        json.dumps(BenchmarkReport((first, result("b")), compare(first, result(subset=Subset(6, 3)))).to_dict())
    )
    assert load_result(file) == first
    values = json.loads(file.read_text())
    assert values["estimates"]["entity"]["n"] == 6 and set(values["difference"]) == {"entity", "overall"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"judge": {"model": "m"}}, "'judge' lacks 'version'"),
        ({"data": {"file": "f"}}, "'data' lacks 'digest'"),
        ({"columns": []}, "'columns' is empty"),
        ({"columns": [{"name": "a", "title": "A", "strata": {"": {}}, "weights": {"": 1}}]}, "strata that are empty"),
        ({"columns": [{"name": "a", "title": "A", "strata": {"": {"p": 1}}, "weights": {}}]}, "have no weight"),
        ({"columns": [COLUMN, COLUMN]}, "'columns' holds 'a' twice"),
        ({"columns": [{**COLUMN, "strata": {"": {"p9": 1}}}]}, "'a' with a value of 'p9', which 'prompts' does not"),
        ({"columns": [{**COLUMN, "strata": {"": {"p0": 10}}}]}, "'a', which comes to 10; it must be 0 to 1"),
        (
            {"columns": [{**COLUMN, "strata": {"": {"p0": 1.5, "p1": 0}}, "of_shares": True}]},
            "'a' with 1.5 of 'p0'; it must be 0 to 1",
        ),
        ({"columns": [{**COLUMN, "weights": {"": -2}}]}, "'a', which comes to -1; it must be 0 to 1"),
        ({"prompts": [*NAMES, "p2"]}, "'prompts' holds 'p2' twice"),
        ({"images_per_prompt": 0}, "'images_per_prompt' is 0; it must be at least 1"),
        ({"prompts": 3}, "prompts"),
        ({"suite": None}, "suite"),
    ],
)
def test_a_damaged_result_is_told(tmp_path, change, message):
    file = tmp_path / "r.json"
    file.write_text(json.dumps({**result().to_dict(), **change}))
    with pytest.raises(RunFileError, match=f"r.json.*{message}"):
        load_result(file)


def test_a_result_of_an_earlier_version_is_read_contributions_outside_0_and_1_included(tmp_path):
    pooled = pooled_column("entity", "Entity", {"p0": (10, 10), "p1": (0, 1), "p2": (1, 1)})
    assert max(pooled.strata[""].values()) > 1
    values = result(columns=[pooled]).to_dict()
    del values["columns"][0]["of_shares"]
    (tmp_path / "r.json").write_text(json.dumps(values))
    assert load_result(tmp_path / "r.json").columns == [pooled]


def test_a_paired_difference_is_of_the_same_prompts():
    better, plain = (
        result(columns=[mean_column("entity", "Entity", {name: value + more for name, value in VALUES.items()})])
        for more in (0.1, 0.0)
    )
    found = compare(better, plain)
    assert set(found) == {"entity"}
    assert found["entity"].mean == pytest.approx(0.1) and found["entity"].n == 6
    same = compare(result(), result())
    assert [one.mean for one in same.values()] == [0.0, 0.0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"suite": "wise"}, "runs/a and b cannot be compared: suites 'dpg' and 'wise'"),
        ({"judge": {"model": "m", "version": "2"}}, "different judges, m .1. and m .2.; scores of two judges"),
        ({"judge": {"model": "n", "version": "1"}}, "different judges, m .1. and n .1."),
        ({"data": {"file": "e.csv", "digest": "x", "prompts": 6, "official": 6}}, "different data, d.csv and e.csv"),
        ({"protocol": {"skip_first_row": True}}, "skip_first_row is False and True"),
        ({"protocol": {}}, "skip_first_row is False and None"),
        (
            {"protocol": {"skip_first_row": False, "instructions": "0123456789abcdef"}},
            r"their judges were asked in different words \(unknown and 0123456789ab\)",
        ),
        (
            {"subset": Subset(2, 0), "prompts": NAMES[:2]},
            "all 6 prompts and 2 of 6 prompts, drawn with seed 0; measure both on the same prompts",
        ),
        ({"prompts": NAMES[:2]}, "all 6 prompts and all 2 prompts"),
        ({"images_per_prompt": 1}, "4 and 1 images a prompt"),
        (
            {"judge": {"model": "m", "version": "1", "extra": "1a2b"}},
            "different judges, m .1. and m .1, extra 1a2b.; scores of two judges",
        ),
        ({"columns": [mean_column("entity", "Entity", VALUES)]}, "only one of them has the score 'overall'"),
        (
            {
                "columns": [
                    mean_column("entity", "Entity", {name: VALUES[name] for name in NAMES if name != "p3"}),
                    Column("overall", "Overall", STRATA, {"one": 0.7, "two": 0.3}),
                ]
            },
            "only one of them has prompt 'p3' in the score 'entity'",
        ),
        (
            {
                "columns": [
                    mean_column("entity", "Entity", VALUES),
                    Column("overall", "Overall", STRATA, {"one": 0.3, "two": 0.7}),
                ]
            },
            "other weights in the score 'overall'",
        ),
    ],
)
def test_what_differs_by_more_than_the_policy_is_not_compared(change, message):
    with pytest.raises(ConfigError, match=message) as error:
        compare(result(), result("b", **change))
    assert "\n" not in str(error.value)
    check_comparable(result(), result("b", usage=Usage(), notes=[]))


def test_a_draw_of_all_prompts_is_a_full_run():
    assert part_of(6, Subset(6, 3)) is part_of(6, None) is None
    assert part_of(6, Subset(5, 3)) == Subset(5, 3)
    check_comparable(result(subset=Subset(6, 3)), result())  # one that an earlier version saved
    assert scope_note(result(subset=Subset(6, 3))) is None


def test_two_draws_of_one_size_are_not_compared():
    first, second = (result(subset=Subset(2, seed), prompts=NAMES[seed : seed + 2]) for seed in (0, 1))
    with pytest.raises(ConfigError, match="drawn with seed 0 and 2 of 6 prompts, drawn with seed 1"):
        compare(first, second)


def test_a_subset_is_drawn_by_its_seed_and_keeps_the_order():
    prompts = [BenchmarkPrompt(str(index), "p", {}) for index in range(100)]
    drawn = [draw_subset(prompts, Subset(10, seed)) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert [prompts.index(prompt) for prompt in drawn[0]] == sorted(prompts.index(prompt) for prompt in drawn[0])
    assert draw_subset(prompts, None) == prompts
    with pytest.raises(ConfigError, match="--limit 101: the data hold 100 prompts"):
        draw_subset(prompts, Subset(101, 0))


def test_a_subset_says_so():
    assert scope_note(result()) is None
    note = scope_note(result(subset=Subset(2, 7), prompts=NAMES[:2]))
    assert note == "SUBSET: 2 of 6 prompts, drawn with seed 7. Not the benchmark's number."
    few = result(data={"file": "f", "digest": "x", "prompts": 6, "official": 1065})
    assert scope_note(few) == "SUBSET: the data hold 6 of the official 1065 prompts. Not the benchmark's number."


def test_usages_add_up():
    both = total([Usage(answers=1, calls=2, tokens_in=3, uncounted=1), Usage(answers=1, cached=1, cost=0.25)])
    assert both == Usage(2, 1, 2, 3, 0, 1, 0.25)
    assert "2 answers, 1 of them from the cache, 2 calls; 3 tokens in, 0 out" in both.words()
    assert "tokens of 1 calls not told; cost 0.2500" in both.words()
    assert Usage().words().endswith("price not given")
    assert TypeAdapter(Usage).validate_python({}) == Usage()
