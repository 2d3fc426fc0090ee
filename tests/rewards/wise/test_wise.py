"""WISE: id ranges and weights by hand, its files and every damage of them, the rewards on a real local server."""

import json

import numpy as np
import pytest

from blip3o_grpo.configs import ConfigError
from blip3o_grpo.rewards import RewardBatch, RewardError, check_reward, find_reward, load_reward
from blip3o_grpo.rewards.benchmarks import BenchmarkPrompt, digest
from blip3o_grpo.rewards.scored_prompt import ScoredPrompt
from blip3o_grpo.rewards.wise import questions
from blip3o_grpo.rewards.wise.published import LEGACY, VERIFIED
from blip3o_grpo.rewards.wise.records import (
    LEGACY as LEGACY_EDITION,
)
from blip3o_grpo.rewards.wise.records import (
    RANGES,
    VERIFIED_RANGES,
    WiseRecord,
    as_metadata,
    category,
    explanation_of,
    join_records,
    read_records,
)
from blip3o_grpo.rewards.wise.records import (
    VERIFIED as VERIFIED_EDITION,
)
from blip3o_grpo.rewards.wise.results import check_results_path, read_scores, read_verified_scores, write_results
from blip3o_grpo.rewards.wise.scoring import (
    LEGACY_OVERALL,
    VERIFIED_OVERALL,
    legacy_columns,
    verified_columns,
    wiscore,
)
from blip3o_grpo.rewards.wise.suite import SUITE, VERIFIED_SUITE
from tests.rewards.judge.server import block, judging

read_wise, read_verified = SUITE.benchmark.read, VERIFIED_SUITE.benchmark.read
FILES = LEGACY_EDITION.files


@pytest.mark.parametrize(
    ("first", "last", "name", "ranges"),
    [
        (1, 400, "culture", RANGES),
        (401, 567, "time", RANGES),
        (568, 700, "space", RANGES),
        (701, 800, "biology", RANGES),
        (801, 900, "physics", RANGES),
        (901, 1000, "chemistry", RANGES),
        (1, 400, "culture", VERIFIED_RANGES),
        (401, 520, "time", VERIFIED_RANGES),
        (521, 640, "space", VERIFIED_RANGES),
        (641, 760, "biology", VERIFIED_RANGES),
        (761, 880, "physics", VERIFIED_RANGES),
        (881, 1000, "chemistry", VERIFIED_RANGES),
    ],
)
def test_the_id_says_the_category(first, last, name, ranges):
    assert category(first, ranges) == category(last, ranges) == name
    assert ranges[name] == (first, last)


@pytest.mark.parametrize("number", [0, 1001, -1])
def test_other_ids_have_none(number):
    with pytest.raises(ValueError, match=f"prompt_id is {number}; WISE's go from 1 to 1000"):
        category(number, RANGES)


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


def test_verified_categories_have_ids_and_weights_of_their_own():
    """Right on 401 to 520 and 641 to 760 alone: time and biology, so .12 + .12, as `calculate_verified.py` says."""
    right = {*range(401, 521), *range(641, 761)}
    prompts = [scored(number, float(number in right)) for number in range(1, 1001)]
    found = {column.name: column.value for column in verified_columns(prompts, {})}
    by_hand = {"culture": 0.0, "time": 1.0, "space": 0.0, "biology": 1.0, "physics": 0.0, "chemistry": 0.0}
    assert found == pytest.approx({**by_hand, "overall": 0.24})
    legacy = {column.name: column.value for column in legacy_columns(prompts, {})}
    assert legacy["overall"] == pytest.approx(0.167 * 120 / 167 + 0.133 * 60 / 133 + 0.1 * 60 / 100)


def test_without_a_category_there_is_no_overall_score():
    assert [column.name for column in legacy_columns(PROMPTS[:3], {})] == ["culture", "time"]


@pytest.mark.parametrize(("rows", "weights"), [(LEGACY, LEGACY_OVERALL), (VERIFIED, VERIFIED_OVERALL)])
def test_published_rows_follow_from_their_own_categories(rows, weights):
    """To the digits that are published: so they are the right columns in the right order."""
    for row in rows:
        if row.tags:
            assert sum(weights[name] * row.tags[name] for name in RANGES) == pytest.approx(row.overall, abs=0.006)


OFFICIAL = {
    "culture": "Cultural knowledge",
    "time": "time",
    "space": "Space",
    "biology": "Biology",
    "physics": "Physical Knowledge",
    "chemistry": "Chemistry",
}


def entry(number, ranges=RANGES, **change):
    return {
        "Prompt": f"prompt {number}",
        "Explanation": "what it means",
        "Category": next((OFFICIAL[n] for n, (low, high) in ranges.items() if low <= number <= high), "none"),
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
        (json.dumps([entry(1, Category=3)]), "entry 1: Category is missing or no text"),
        (
            json.dumps([entry(550, VERIFIED_RANGES)]),
            "entry 1: Category is 'Space', but in suite 'wise' prompt_id 550 is of time; the other .* 'wise-verified'",
        ),
    ],
)
def test_damage_is_told_with_its_place(text, message):
    with pytest.raises(ConfigError, match=message) as error:
        read_records(text, "w.json", LEGACY_EDITION)
    assert "\n" not in str(error.value)


def test_an_id_that_appears_twice_is_told():
    one = read_records(json.dumps([entry(5)]), "a", LEGACY_EDITION)
    two = read_records(json.dumps([entry(3), entry(5)]), "b", LEGACY_EDITION)
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
    assert data.prompts[0].text == "prompt 1" and data.protocol == {"edition": "legacy"}
    assert data.instructions.digest == digest(questions.LEGACY.encode()) and not data.instructions.given
    assert "this project's own words" in data.instructions.note
    assert [prompt.id for prompt in read_wise(folder / FILES[1], {}).prompts] == ["401"]
    (folder / "ask.txt").write_text("{prompt} means {explanation}. Consistency: ?")
    asked = read_wise(folder, {"instructions": str(folder / "ask.txt")})
    assert asked.reward_options == {"instructions": "{prompt} means {explanation}. Consistency: ?"}
    assert asked.instructions.digest == digest(b"{prompt} means {explanation}. Consistency: ?")
    assert asked.instructions.given and asked.instructions.note == f"The judge was asked as {folder}/ask.txt says."
    (folder / "ask.txt").write_text("{prompt}")
    with pytest.raises(ConfigError, match="ask.txt: what a judge is asked .* must name {prompt} and {explanation}"):
        read_wise(folder, {"instructions": str(folder / "ask.txt")})
    with pytest.raises(ConfigError, match="no.txt: no such file; --suite-option instructions names a text file with"):
        read_wise(folder, {"instructions": str(folder / "no.txt")})
    (folder / FILES[2]).unlink()
    with pytest.raises(ConfigError, match="natural_science.json: no such file; --data names"):
        read_wise(folder, {})
    with pytest.raises(ConfigError, match="no licence to come along with; --data names"):
        read_wise(None, {})
    assert SUITE.benchmark.num_prompts == VERIFIED_SUITE.benchmark.num_prompts == 1000


def test_the_verified_edition_has_files_of_its_own(folder):
    with pytest.raises(ConfigError, match=r"sense_verified.json: no such file; --data names WISE's folder `data_ver"):
        read_verified(folder, {})
    with pytest.raises(ConfigError, match=r"natural_science.json: a file of suite 'wise'; in suite 'wise-verified' "):
        read_verified(folder / FILES[2], {})
    for file, number in zip(VERIFIED_EDITION.files, (400, 521, 641), strict=True):
        (folder / file).write_text(json.dumps([entry(number, VERIFIED_RANGES)]))
    data = read_verified(folder, {})
    assert [prompt.id for prompt in data.prompts] == ["400", "521", "641"] and data.protocol == {"edition": "verified"}
    assert data.instructions.digest == digest(questions.VERIFIED.encode())
    with pytest.raises(ConfigError, match=r"verified.json: a file of suite 'wise-verified'; in suite 'wise' --data"):
        read_wise(folder / VERIFIED_EDITION.files[0], {})
    merged = folder / "merge.json"  # the official file of all prompts, and one of rewritten ones with another Category
    merged.write_text(json.dumps([entry(641, VERIFIED_RANGES), entry(748, VERIFIED_RANGES, Category="Ecology")]))
    assert [prompt.id for prompt in read_verified(merged, {}).prompts] == ["641", "748"]
    with pytest.raises(ConfigError, match="Category is 'Biology', but in suite 'wise' prompt_id 641 is of space"):
        read_wise(merged, {})


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
        with pytest.raises(
            RewardError, match="answered '2' instead of exactly one whole number from 0 to 1, or `Score: NUMBER`"
        ):
            reward.score(batch_of(2))


@pytest.mark.parametrize(
    ("said", "score"), [("Score: 1", 1.0), ("Score: 0\n", 0.0), ("1", 1.0), ("Score: 2", None), ("The score: 1", None)]
)
def test_the_verified_judge_may_answer_in_the_official_form(said, score):
    with judging(lambda *_: said) as served:
        reward = load_reward("wise_verified", {"judge": block(served, retries=0)})
        if score is None:
            with pytest.raises(RewardError, match=f"answered '{said}' instead of exactly one whole number"):
                reward.score(batch_of(1))
        else:
            assert reward.score(batch_of(1)) == [score]


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
    found = read_scores(path, as_asked(1, 401)).prompts
    assert [prompt.scores for prompt in found] == [[pytest.approx(0.8)]] * 2
    assert [prompt.id for prompt in found] == ["1", "401"] and found[0].explanations[0]["numbers"] == numbers
    verified = tmp_path / "verified.jsonl"
    write_results(verified, [scored(7, 1.0, numbers={"score": 1})])
    assert read_verified_scores(verified, as_asked(7)).prompts[0].scores == [1.0]


def test_only_prompts_that_the_limit_left_out_are_passed_over(tmp_path):
    path = tmp_path / "scores.jsonl"
    path.write_text("".join(json.dumps({**GIVEN, "prompt_id": number}) + "\n" for number in (1, 2)))
    assert [prompt.id for prompt in read_scores(path, as_asked(1), as_asked(2)).prompts] == ["1"]
    with pytest.raises(ConfigError, match=":2: prompt_id 2 is no prompt of the data"):
        read_scores(path, as_asked(1))


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
        ([{**GIVEN, "prompt_id": 5000}], ":1: prompt_id 5000 is no prompt of the data"),
        ([{**GIVEN, "prompt_id": 1.0}], ":1: prompt_id is 1.0; it must be a whole number"),
        ([{**GIVEN, "prompt_id": "1"}], ":1: prompt_id is '1'; it must be a whole number"),
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
