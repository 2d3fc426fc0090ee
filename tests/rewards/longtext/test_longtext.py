"""LongText-Bench: text accuracy by hand, its files and every damage of them, the reward on a real local server."""

import json

import numpy as np
import pytest

from blip3o_grpo.configs import ConfigError
from blip3o_grpo.rewards import RewardBatch, RewardError, check_reward, find_reward, load_reward
from blip3o_grpo.rewards.longtext.records import read_prompts, texts_of
from blip3o_grpo.rewards.longtext.results import check_results_path, read_results, write_results
from blip3o_grpo.rewards.longtext.scoring import columns, found_and_wanted, units
from blip3o_grpo.rewards.longtext.suite import read
from blip3o_grpo.rewards.scored_prompt import ScoredPrompt
from tests.rewards.judge.server import block, judging


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        ("FRESH Brews,\n  every-day!", "en", ["fresh", "brews", "everyday"]),
        ("Café №7", "en", ["café", "7"]),
        ("每日 新鲜, Ab 1!", "zh", list("每日新鲜Ab1")),
        ("!?", "en", []),
    ],
)
def test_what_is_counted(text, language, expected):
    assert units(text, language) == expected


@pytest.mark.parametrize(
    ("texts", "reading", "language", "counts"),
    [
        (["OPEN ALL DAY", "open"], "open: all night", "en", (2, 4)),  # the second `open` is not there
        (["OPEN ALL DAY", "open"], "day all OPEN open open", "en", (4, 4)),
        (["OPEN"], "", "en", (0, 1)),
        (["每日新鲜", "日"], "新日", "zh", (2, 5)),
        (["Ab"], "ab", "zh", (1, 2)),  # case counts in Chinese texts, as in the benchmark's script
    ],
)
def test_each_occurrence_counts_once(texts, reading, language, counts):
    assert found_and_wanted(texts, reading, language) == counts


def scored(name, length, *counts):
    explanations = [{"found": found, "wanted": wanted, "reading": "r"} for found, wanted in counts]
    metadata = {"text": ["t"], "prompt_id": int(name.split("-")[1]), "length": length}
    images = [np.zeros((4, 4, 3), np.uint8)] * len(counts)
    return ScoredPrompt(name, metadata, images, [f / w for f, w in counts], explanations, name)


PROMPTS = [scored("en-0", "short", (1, 2), (2, 2)), scored("en-1", "long", (10, 20), (0, 20))]


def test_the_score_pools_words_over_images_and_prompts():
    found = {column.name: column.value for column in columns(PROMPTS, {})}
    assert found == pytest.approx({"long": 10 / 40, "short": 3 / 4, "overall": 13 / 44})
    assert [column.name for column in columns(PROMPTS[:1], {})] == ["overall"]


LINE = {"prompt": "a sign", "text": ["OPEN"], "prompt_id": 3, "length": "short"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "t.jsonl: holds no prompts"),
        ("{", "t.jsonl:1: not valid JSON"),
        ("[1]", "t.jsonl:1: expected an object"),
        (json.dumps({**LINE, "text": "OPEN"}), "t.jsonl:1: `text` must be a list of texts"),
        (json.dumps({**LINE, "text": []}), "t.jsonl:1: `text` holds nothing that counts"),
        (json.dumps({**LINE, "text": ["!"]}), "t.jsonl:1: `text` holds nothing that counts"),
        (json.dumps({**LINE, "prompt": " "}), "t.jsonl:1: prompt is missing"),
        (json.dumps({**LINE, "prompt_id": "3"}), "t.jsonl:1: prompt_id is '3'"),
        (json.dumps({"prompt": "a", "text": ["b"]}), "t.jsonl:1: lacks the key 'prompt_id'"),
        (f"{json.dumps(LINE)}\n\n{json.dumps(LINE)}", "t.jsonl:3: prompt_id 3 appears twice"),
    ],
)
def test_damage_is_told_with_its_place(text, message):
    with pytest.raises(ConfigError, match=message) as error:
        read_prompts(text, "t.jsonl", "en")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("language", "last"), [("en", "en-199"), ("zh", "zh-199")])
def test_the_official_prompts_come_along(language, last):
    data = read(None, {"language": language})
    assert len(data.prompts) == 160 and data.prompts[-1].id == last
    assert {prompt.metadata["length"] for prompt in data.prompts} == {"short", "long"}
    assert data.reward_options == data.protocol == {"language": language}


def test_a_file_may_be_given_and_a_language_must_be_known(tmp_path):
    file = tmp_path / "t.jsonl"
    file.write_text(json.dumps(LINE))
    assert [prompt.id for prompt in read(file, {}).prompts] == ["en-3"]
    with pytest.raises(ConfigError, match="language is 'de'; it is one of en, zh"):
        read(None, {"language": "de"})


def test_a_judge_reads_and_what_it_reads_is_counted():
    images = [np.full((8, 8, 3), level, np.uint8) for level in (200, 10)]
    batch = RewardBatch(images, ["a sign"] * 2, [{"text": ["OPEN ALL DAY"]}] * 2)
    with judging(lambda _, picture: "Open all night" if picture.mean() > 100 else "No text") as served:
        reward = load_reward("longtext", {"judge": block(served, retries=0)})
        (first, why), (second, nothing) = reward.explained_scores(batch)
        check_reward(reward.instance, batch)
        assert reward.score(RewardBatch(images[:1], ["p"], [{"text": "OPEN"}])) == [None]
    assert (first, second) == (pytest.approx(2 / 3), 0.0)
    assert (why["reading"], why["found"], why["wanted"]) == ("Open all night", 2, 3)
    assert nothing["reading"] == ""
    with judging(lambda *_: "") as served, pytest.raises(RewardError, match="answered nothing instead of the text"):
        load_reward("longtext", {"judge": block(served, retries=0)}).score(batch)


def test_texts_and_language_are_checked_before_anything_loads():
    judge = {"url": "http://host/v1", "model": "m", "version": "1"}
    with pytest.raises(RewardError, match="unknown language 'de'"):
        find_reward("longtext").check_options({"judge": judge, "language": "de"})
    with pytest.raises(RewardError, match="holds nothing that counts in the language 'en'"):
        find_reward("longtext").check_prompt("p", {"text": ["!"]}, {"judge": judge})
    assert texts_of({"text": ["日"]}, "zh") == ["日"]


def test_official_files(tmp_path):
    path = tmp_path / "run.jsonl"
    check_results_path(path)
    write_results(path, PROMPTS)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(lines) == 4
    assert lines[1] == {
        "prompt_id": 0,
        "prompt": "en-0",
        "ocr_gt": ["t"],
        "ocr_results": "r",
        "image_path": str(tmp_path / "run/en-0-1.png"),
    }
    with pytest.raises(ConfigError, match="exists"):
        check_results_path(path)


def test_recorded_readings_are_scored(tmp_path):
    path = tmp_path / "run.jsonl"
    prompts = read_prompts(json.dumps({**LINE, "text": ["OPEN", "all day"]}), "t.jsonl", "en")
    lines = [{"prompt_id": 3, "ocr_gt": ["other"], "ocr_results": reading} for reading in ("open day", "")]
    path.write_text("".join(json.dumps(line) + "\n" for line in [*lines, {"prompt_id": 9, "ocr_results": "x"}]))
    (found,) = read_results(path, prompts)
    assert found.scores == [pytest.approx(2 / 3), 0.0]
    assert [(e["found"], e["wanted"]) for e in found.explanations] == [(2, 3), (0, 3)]
    for line, message in (
        ({"prompt_id": 3}, ":1: lacks the key 'ocr_results'"),
        ({"ocr_results": "x"}, ":1: lacks the key 'prompt_id'"),
        ({"prompt_id": 3, "ocr_results": 3}, ":1: ocr_results is no text"),
        ({"prompt_id": 4, "ocr_results": "x"}, "holds no answers for 1 of 1 prompts, first 'en-3'"),
    ):
        path.write_text(json.dumps(line))
        with pytest.raises(ConfigError, match=message):
            read_results(path, prompts)
