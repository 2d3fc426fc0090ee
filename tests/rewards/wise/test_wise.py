"""WISE: id ranges and weights by hand, its files and every damage of them, the rewards on a real local server."""

import json
from functools import partial

import numpy as np
import pytest

from blip3o_grpo.configs import ConfigError
from blip3o_grpo.rewards import RewardBatch, RewardError, check_reward, find_reward, load_reward
from blip3o_grpo.rewards.benchmarks import BenchmarkPrompt
from blip3o_grpo.rewards.scored_prompt import ScoredPrompt
from blip3o_grpo.rewards.wise.published import LEGACY, VERIFIED
from blip3o_grpo.rewards.wise.records import (
    RANGES,
    WiseRecord,
    as_metadata,
    category,
    explanation_of,
    join_records,
    read_records,
)
from blip3o_grpo.rewards.wise.results import check_results_path, read_scores, read_verified_scores, write_results
from blip3o_grpo.rewards.wise.scoring import (
    LEGACY_OVERALL,
    VERIFIED_OVERALL,
    legacy_columns,
    verified_columns,
    wiscore,
)
from blip3o_grpo.rewards.wise.suite import FILES, SUITE, VERIFIED_SUITE, read
from tests.rewards.judge.server import block, judging

read_wise = partial(read, suite="wise")


@pytest.mark.parametrize(
    ("first", "last", "name"),
    [
        (1, 400, "culture"),
        (401, 567, "time"),
        (568, 700, "space"),
        (701, 800, "biology"),
        (801, 900, "physics"),
        (901, 1000, "chemistry"),
    ],
)
def test_the_id_says_the_category(first, last, name):
    assert category(first) == category(last) == name
    assert RANGES[name] == (first, last)


@pytest.mark.parametrize("number", [0, 1001, -1])
def test_other_ids_have_none(number):
    with pytest.raises(ValueError, match=f"prompt_id is {number}; WISE's go from 1 to 1000"):
        category(number)


@pytest.mark.parametrize(
    ("numbers", "score"),
    [((2, 2, 2), 1.0), ((0, 0, 0), 0.0), ((2, 0, 0), 0.7), ((0, 2, 0), 0.2), ((0, 0, 2), 0.1), ((1, 2, 1), 0.6)],
)
def test_wiscore(numbers, score):
    assert wiscore(dict(zip(("Consistency", "Realism", "Aesthetic Quality"), numbers, strict=True))) == pytest.approx(
        score
    )


def test_weights_add_up_to_1():
    assert sum(LEGACY_OVERALL.values()) == pytest.approx(1) and sum(VERIFIED_OVERALL.values()) == pytest.approx(1)


def scored(number, *scores, said="said", numbers=None):
    record = WiseRecord(number, f"prompt {number}", f"explanation {number}", "Sub")
    images = [np.full((4, 4, 3), number % 256, np.uint8)] * len(scores)
    explanations = [{"said": [said], "numbers": numbers or {}}] * len(scores)
    return ScoredPrompt(record.prompt, as_metadata(record), images, list(scores), explanations, str(number))


PROMPTS = [
    scored(1, 1.0),
    scored(400, 0.0),
    scored(401, 0.7),
    scored(568, 0.2),
    scored(701, 0.1),
    scored(801, 0.4, 0.6),
    scored(1000, 1.0),
]


def test_categories_are_means_and_the_overall_score_weighs_them():
    found = {column.name: column.value for column in legacy_columns(PROMPTS, {})}
    assert list(found) == [*RANGES, "overall"]
    by_hand = {"culture": 0.5, "time": 0.7, "space": 0.2, "biology": 0.1, "physics": 0.5, "chemistry": 1.0}
    assert {name: found[name] for name in RANGES} == pytest.approx(by_hand)
    assert found["overall"] == pytest.approx(0.4 * 0.5 + 0.167 * 0.7 + 0.133 * 0.2 + 0.1 * (0.1 + 0.5 + 1.0))
    verified = {column.name: column.value for column in verified_columns(PROMPTS, {})}
    assert verified["overall"] == pytest.approx(0.4 * 0.5 + 0.12 * (0.7 + 0.2 + 0.1 + 0.5 + 1.0))


def test_without_a_category_there_is_no_overall_score():
    assert [column.name for column in legacy_columns(PROMPTS[:3], {})] == ["culture", "time"]


@pytest.mark.parametrize(("rows", "weights"), [(LEGACY, LEGACY_OVERALL), (VERIFIED, VERIFIED_OVERALL)])
def test_published_rows_follow_from_their_own_categories(rows, weights):
    """To the digits that are published: so they are the right columns in the right order."""
    for row in rows:
        if row.tags:
            assert sum(weights[name] * row.tags[name] for name in RANGES) == pytest.approx(row.overall, abs=0.006)


def entry(number, **change):
    return {
        "Prompt": f"prompt {number}",
        "Explanation": "what it means",
        "Category": "Culture",
        "Subcategory": "Festivals",
        "prompt_id": number,
        **change,
    }


def without(key):
    return {name: value for name, value in entry(1).items() if name != key}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[", "w.json: not valid JSON"),
        ("{}", "w.json: a WISE prompt file is a list of objects"),
        ("[]", "w.json: a WISE prompt file is a list of objects"),
        ("[1]", "w.json: entry 1: expected an object with Prompt, Explanation"),
        (json.dumps([entry(1), without("prompt_id")]), "w.json: entry 2: lacks the key 'prompt_id'"),
        (
            json.dumps([{**without("Prompt"), "prompt": "x"}]),
            "entry 1: lacks the key 'Prompt'; 'prompt_id|entry 1: lacks the key 'Prompt'; 'prompt'",
        ),
        (json.dumps([entry(1, prompt_id="1")]), "entry 1: prompt_id is '1'; it must be a whole number"),
        (json.dumps([entry(1, prompt_id=True)]), "entry 1: prompt_id is True"),
        (json.dumps([entry(1001)]), "entry 1: prompt_id is 1001; WISE's go from 1 to 1000"),
        (json.dumps([entry(1, Explanation=" ")]), "entry 1: Explanation is missing or no text"),
        (json.dumps([entry(1, Prompt=3)]), "entry 1: Prompt is missing or no text"),
    ],
)
def test_damage_is_told_with_its_place(text, message):
    with pytest.raises(ConfigError, match=message) as error:
        read_records(text, "w.json")
    assert "\n" not in str(error.value)


def test_an_id_that_appears_twice_is_told():
    one, two = read_records(json.dumps([entry(5)]), "a"), read_records(json.dumps([entry(3), entry(5)]), "b")
    with pytest.raises(ConfigError, match="b: prompt_id 5 appears twice .first in a."):
        join_records({"a": one, "b": two})
    assert [record.id for record in join_records({"b": two})] == [3, 5]


def test_a_record_without_an_explanation_is_refused():
    for value in (1, {}, {"explanation": 3}):
        with pytest.raises(RewardError, match="`wise` must be an object with `explanation`"):
            explanation_of({"wise": value})
        with pytest.raises(RewardError, match="`wise` must be an object with `explanation`"):
            find_reward("wise").check_prompt("p", {"wise": value}, {})


@pytest.fixture
def folder(tmp_path):
    for file, number in zip(FILES, (1, 401, 1000), strict=True):
        (tmp_path / file).write_text(json.dumps([entry(number)]))
    return tmp_path


def test_the_suites_read_the_folder_or_a_file(folder):
    data = read_wise(folder, {})
    assert [prompt.id for prompt in data.prompts] == ["1", "401", "1000"]
    assert data.prompts[0].text == "prompt 1" and data.protocol == {"instructions": "this project's"}
    assert [prompt.id for prompt in read_wise(folder / FILES[1], {}).prompts] == ["401"]
    (folder / "ask.txt").write_text("{prompt} means {explanation}. Consistency: ?")
    asked = read_wise(folder, {"instructions": str(folder / "ask.txt")})
    assert asked.reward_options == {"instructions": "{prompt} means {explanation}. Consistency: ?"}
    assert asked.protocol != data.protocol
    (folder / "ask.txt").write_text("{prompt}")
    with pytest.raises(ConfigError, match="ask.txt: what a judge is asked .* must name {prompt} and {explanation}"):
        read_wise(folder, {"instructions": str(folder / "ask.txt")})
    (folder / FILES[2]).unlink()
    with pytest.raises(ConfigError, match="natural_science.json: no such file; --data names"):
        read_wise(folder, {})
    with pytest.raises(ConfigError, match="no licence to come along with; --data names"):
        read_wise(None, {})
    assert SUITE.benchmark.num_prompts == VERIFIED_SUITE.benchmark.num_prompts == 1000


def batch_of(*levels):
    images = [np.full((8, 8, 3), level, np.uint8) for level in levels]
    record = as_metadata(WiseRecord(7, "a plant", "a carnation", "Festivals"))
    return RewardBatch(images, ["a plant"] * len(levels), [record] * len(levels))


def test_a_judge_gives_three_numbers():
    def reply(question, picture):
        assert "Request: a plant\n" in question and "shows: a carnation\n" in question
        return f"Consistency: {int(picture.mean())}\nRealism: 1\nAesthetic Quality: 0"

    with judging(reply) as served:
        reward = load_reward("wise", {"judge": block(served, retries=0)})
        (first, why), (second, _) = reward.explained_scores(batch_of(2, 0))
        check_reward(reward.instance, batch_of(2, 0, 1))
        assert reward.score(RewardBatch([np.zeros((8, 8, 3), np.uint8)], ["p"], [{}])) == [None]
        with pytest.raises(RewardError, match="instead of exactly 3 lines, `Consistency: NUMBER`"):
            reward.score(batch_of(3))
    assert (first, second) == (pytest.approx(0.8), pytest.approx(0.1))
    assert why["numbers"] == {"Consistency": 2, "Realism": 1, "Aesthetic Quality": 0}


def test_the_verified_judge_gives_0_or_1():
    with judging(lambda question, picture: str(int(picture.mean()))) as served:
        reward = load_reward("wise_verified", {"judge": block(served, retries=0)})
        assert reward.score(batch_of(1, 0)) == [1.0, 0.0]
        with pytest.raises(RewardError, match="answered '2' instead of exactly one whole number from 0 to 1"):
            reward.score(batch_of(2))


def test_other_words_need_both_places():
    judge = {"url": "http://host/v1", "model": "m", "version": "1"}
    find_reward("wise").check_options({"judge": judge, "instructions": "{prompt} {explanation}"})
    with pytest.raises(RewardError, match="instructions must name {prompt} and {explanation}"):
        find_reward("wise").check_options({"judge": judge, "instructions": "{prompt}"})


def test_official_files(tmp_path):
    path = tmp_path / "scores.jsonl"
    check_results_path(path)
    numbers = {"Consistency": 2, "Realism": 1, "Aesthetic Quality": 0}
    write_results(path, [scored(401, 0.8, numbers=numbers), scored(1, 0.8, numbers=numbers)])
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines[0] == {"prompt_id": 1, "Subcategory": "Sub", "consistency": 2, "realism": 1, "aesthetic_quality": 0}
    assert [line["prompt_id"] for line in lines] == [1, 401]
    full = json.loads((tmp_path / "scores_full.json").read_text())
    assert full[1] == {
        "prompt_id": 401,
        "prompt": "prompt 401",
        "key": "explanation 401",
        "image_path": str(tmp_path / "scores/401.png"),
        "evaluation": "said",
    }
    assert sorted(file.name for file in (tmp_path / "scores").iterdir()) == ["1.png", "401.png"]
    with pytest.raises(ConfigError, match="exists; give another name"):
        check_results_path(path)


def as_asked(*numbers):
    return [BenchmarkPrompt(p.id, p.prompt, p.metadata) for p in (scored(number, 0.0) for number in numbers)]


def test_recorded_numbers_score_as_they_did(tmp_path):
    path = tmp_path / "scores.jsonl"
    numbers = {"Consistency": 2, "Realism": 1, "Aesthetic Quality": 0}
    write_results(path, [scored(401, 0.8, numbers=numbers), scored(1, 0.8, numbers=numbers)])
    path.write_text(path.read_text().replace(": 2,", ": 2.0,"))  # the official script writes floats
    found = read_scores(path, as_asked(1, 401))
    assert [prompt.scores for prompt in found] == [[pytest.approx(0.8)]] * 2
    assert [prompt.id for prompt in found] == ["1", "401"] and found[0].explanations[0]["numbers"] == numbers
    verified = tmp_path / "verified.jsonl"
    write_results(verified, [scored(7, 1.0, numbers={"score": 1})])
    assert read_verified_scores(verified, as_asked(7))[0].scores == [1.0]


GIVEN = {"prompt_id": 1, "Subcategory": "S", "consistency": 2, "realism": 1, "aesthetic_quality": 0}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([{**GIVEN, "consistency": 999}], ":1: consistency is 999; it must be a whole number from 0 to 2"),
        ([{**GIVEN, "realism": 1.5}], ":1: realism is 1.5"),
        ([{**GIVEN, "realism": True}], ":1: realism is True"),
        ([{**GIVEN, "realism": None}], ":1: realism is None"),
        ([GIVEN, GIVEN], ":2: prompt_id 1 appears twice"),
        ([{"consistency": 2}], ":1: lacks the key 'prompt_id'"),
        ([[1]], ":1: expected an object, found list"),
        ([{**GIVEN, "prompt_id": 2}], "holds no answers for 1 of 1 prompts, first '1'"),
        ([], "holds no answers for 1 of 1 prompts"),
    ],
)
def test_damaged_records_are_told(tmp_path, lines, message):
    path = tmp_path / "scores.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(ConfigError, match=message):
        read_scores(path, as_asked(1))
    path.write_text("{")
    with pytest.raises(ConfigError, match=":1: not valid JSON"):
        read_scores(path, as_asked(1))
