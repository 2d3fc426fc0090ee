"""GenEval's table, paired differences and official files, from images drawn right or wrong and really scored."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from blip3o_grpo.configs import RewardSection
from blip3o_grpo.evaluation.heldout import paired_difference, summarise
from blip3o_grpo.evaluation.suites import SuiteResult, scored_prompts
from blip3o_grpo.evaluation.tables import suite_tables
from blip3o_grpo.rewards.geneval import TAGS
from blip3o_grpo.rewards.geneval.results import write_results
from blip3o_grpo.rollout import Completion, Prompt, Rollout, RolloutGroup
from tests.grpo.geneval_groups import REWARD, check_official_summary, drawn_groups


@pytest.fixture(scope="module")
def groups():
    return drawn_groups({"single_object": 1.0})


@pytest.fixture(scope="module")
def worse():
    return drawn_groups({"counting": 0.0})


def result_of(*measured, policies=("runs/better", "tiny")) -> SuiteResult:
    evaluations = tuple(summarise(groups, (REWARD,), 0) for groups in measured)
    difference = paired_difference(*measured, (REWARD,)) if len(measured) == 2 else None
    return SuiteResult("geneval", REWARD, policies[: len(measured)], evaluations, difference)


def printed(result: SuiteResult, width: int) -> list[str]:
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        console.print(suite_tables(result))
    return capture.get().splitlines()


def test_the_official_summary_reads_the_same_numbers(groups, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = Path("scores/run.jsonl")
    write_results(path, scored_prompts(groups, "geneval"))
    values = result_of(groups).to_dict()
    check_official_summary(path, values)
    assert values["tags"]["geneval"]["single_object"][0] == 1
    assert 0 < values["means"]["geneval/overall"] < 1
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    assert len(lines) == len(rollouts)
    for line, rollout in zip(lines, rollouts, strict=True):
        assert list(line) == ["filename", "tag", "prompt", "correct", "reason", "metadata", "details"]
        assert line["correct"] is (rollout.rewards["geneval"] == 1.0)
        assert bool(line["reason"]) is not line["correct"]
        assert json.loads(line["details"]) == rollout.explanations["geneval"]["found"]
        assert json.loads(line["metadata"])["prompt"] == line["prompt"]
        assert (np.asarray(Image.open(line["filename"])) == rollout.image).all()


def test_the_difference_is_paired_by_prompt_and_stratified_by_tag(groups, worse):
    first, second = (summarise(measured, (REWARD,), 0) for measured in (groups, worse))
    difference = paired_difference(groups, worse, (REWARD,))
    overall, counting = difference.means["geneval/overall"], difference.tags["geneval"]["counting"]
    assert overall == pytest.approx(first.means["geneval/overall"] - second.means["geneval/overall"])
    assert counting[0] == pytest.approx(first.tags["geneval"]["counting"][0] - second.tags["geneval"]["counting"][0])
    low, high = difference.intervals["geneval/overall"]
    assert low < overall < high
    opposite = paired_difference(worse, groups, (REWARD,))
    assert opposite.means["geneval/overall"] == pytest.approx(-overall)


def test_a_policy_does_not_differ_from_itself(groups):
    difference = paired_difference(groups, groups, (REWARD,))
    assert set(difference.means.values()) == {0.0}
    for found in difference.estimates().values():
        assert found.direction == 0 and (found.low is None or found.low == -found.high)


def test_a_prompt_without_a_score_on_one_side_is_left_out_of_the_difference():
    def group(name, scores):
        completion = Completion(np.zeros(4, np.int32), np.zeros(4, np.float32), 0, 0)
        image = np.zeros((4, 4, 3), np.uint8)
        return RolloutGroup(Prompt(name, name), [], tuple(Rollout(completion, image, {"ocr": s}) for s in scores))

    first = [group("a", [1.0, 0.5]), group("b", [None]), group("c", [1.0])]
    second = [group("c", [0.5]), group("b", [0.0]), group("a", [0.5, 0.5])]
    difference = paired_difference(first, second, (RewardSection(name="ocr"),))
    assert difference.per_prompt == {"a": {"ocr": 0.25}, "b": {"ocr": None}, "c": {"ocr": 0.5}}
    assert difference.means == {"ocr": 0.375}


def test_the_table_has_the_published_columns_and_fits_80_characters(groups, worse):
    result = result_of(groups, worse)
    for width in (80, 120):
        lines = printed(result, width)
        text = " ".join(" ".join(lines).split())
        assert max(map(len, lines)) <= width
        assert "…" not in text
        assert "not a ranking" in text
    head = next(i for i, line in enumerate(lines) if line.startswith("Model"))
    columns = ["Single object", "Two objects", "Counting", "Colors", "Position", "Color attribution", "Overall"]
    assert set(" ".join(lines[head - 1 : head + 1]).split()) == {"Model", *" ".join(columns).split()}
    (bagel,) = (line.split() for line in lines if line.startswith("BAGEL"))
    assert bagel == ["BAGEL", "†", ".98", ".95", ".84", ".95", ".78", ".77", ".88"]
    (metaqueries,) = (line.split() for line in lines if line.startswith("MetaQueries"))
    assert metaqueries[3:] == ["–"] * 6 + [".80"]
    own = next(line.split() for line in lines if line.startswith("runs/better"))
    scores = result.to_dict()["tags"]["geneval"]
    assert own[1:7] == [f"{scores[tag][0]:.2f}".replace("0.", ".", 1) for tag in TAGS]


def test_the_comparison_shows_both_policies_and_the_difference(groups, worse):
    result = result_of(groups, worse)
    (line,) = (line.split() for line in printed(result, 80) if line.startswith("Counting"))
    mean, low, high = result.difference.tags["geneval"]["counting"]
    first, second = (evaluation.tags["geneval"]["counting"][0] for evaluation in result.evaluations)
    n = result.difference.estimates()["geneval/counting"].n
    assert line[1:] == [f"{first:.3f}", f"{second:.3f}", f"{mean:+.3f}", f"{low:+.3f}", "to", f"{high:+.3f}", str(n)]


def test_prompts_of_other_kinds_get_columns_of_their_own_and_missing_kinds_a_dash(groups):
    other = RolloutGroup(Prompt("x", "x", {"tag": "long_scene", "include": []}), [], groups[0].rollouts)
    lines = printed(result_of([*groups[:2], other]), 120)
    head = " ".join(lines[1:4])
    assert "Long" in head and "scene" in head
    own = next(line.split() for line in lines if line.startswith("runs/better"))
    assert own == ["runs/better", "1.00", "–", "–", "–", "–", "–", "1.00", "1.00"]


@pytest.mark.parametrize("tag", ["[/red]x", "[red]x", "x[link=a]", "\x1bx"])
def test_kinds_and_policies_are_shown_as_they_are_written(groups, tag):
    """Nothing in them is read as markup, which would fail once all the work is done."""
    other = RolloutGroup(Prompt("x", "x", {"tag": tag, "include": []}), [], groups[0].rollouts)
    for result in (
        result_of([*groups[:2], other], policies=("runs/[/b]a",)),
        result_of([*groups[:2], other], [*groups[:2], other], policies=("runs/[/b]a", "runs/[b]")),
    ):
        text = "\n".join(printed(result, 160))
        assert "runs/[/b]a" in text and tag.capitalize().replace("\x1b", "\N{REPLACEMENT CHARACTER}") in text


@pytest.mark.parametrize(
    ("options", "note"),
    [
        ({}, "Detections count above 0.3, in counting above 0.9: the official ones."),
        ({"detector": "mmdet", "detector_options": {"image_sides": [1333, 800]}}, "above 0.9: the official ones."),
        ({"detector": "ssd"}, "not the official verdict: another detector."),
        (
            {"detector": "ssd", "colors": "nearest", "threshold": 0.5, "counting_threshold": 0.25},
            "above 0.5, in counting above 0.25: not the official verdict: another detector, other colours, other",
        ),
        ({"detector_options": {"image_sides": [640, 384]}}, "not the official verdict: images scaled to 640 x 384 px."),
    ],
)
def test_the_table_says_how_its_verdicts_depart_from_the_official_ones(groups, options, note):
    result = replace(result_of(groups), reward=RewardSection(name="geneval", options=options))
    assert note in " ".join(" ".join(printed(result, 200)).split())
