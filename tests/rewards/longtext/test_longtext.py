"""LongText-Bench: text accuracy by hand, its files and every damage of them, the reward on a real local server."""

import json

import numpy as np
import pytest

from blip3o_grpo.configs import ConfigError
from blip3o_grpo.rewards import RewardBatch, RewardError, check_reward, find_reward, load_reward
from blip3o_grpo.rewards.benchmarks import digest
from blip3o_grpo.rewards.longtext.records import read_prompts, texts_of
from blip3o_grpo.rewards.longtext.results import check_results_path, read_results, write_results
from blip3o_grpo.rewards.longtext.reward import ASKED
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
    assert data.instructions.digest == digest(ASKED.encode())


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


def recorded(path, *lines):
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    return path


def test_recorded_readings_are_scored(tmp_path):
    prompts = read_prompts(json.dumps({**LINE, "text": ["OPEN", "all day"]}), "t.jsonl", "en")
    others = read_prompts(json.dumps({**LINE, "prompt_id": 9}), "t.jsonl", "en")
    lines = [
        {"prompt_id": 3, "prompt": "a sign", "ocr_gt": ["OPEN", "all day"], "ocr_results": text}
        for text in ("open day", "")
    ]
    path = recorded(tmp_path / "run.jsonl", *lines, {"prompt_id": 9, "ocr_results": ""})
    answers = read_results(path, prompts, others)
    (found,) = answers.prompts
    assert found.scores == [pytest.approx(2 / 3), 0.0]
    assert [(e["found"], e["wanted"]) for e in found.explanations] == [(2, 3), (0, 3)]
    assert answers.notes == ("Of 2 recorded readings 1 are empty: nothing that was wanted is found in them.",)
    full = recorded(tmp_path / "full.jsonl", {"prompt_id": 3, "ocr_results": "open"})
    assert read_results(full, prompts).notes == ()


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([{"prompt_id": 3}], ":1: lacks the key 'ocr_results'"),
        (
            [{"ocr_results": "x"}],
            ":1: names no prompt of the data: neither by prompt_id, nor by its prompt, nor by an im",
        ),
        ([{"ocr_results": "x", "prompt": "other", "image": "a.png"}], ":1: names no prompt of the data"),
        ([{"prompt_id": 3, "ocr_results": 3}], ":1: ocr_results is no text"),
        ([{"prompt_id": 3, "ocr_results": "x", "image": 3}], ":1: the image's path is 3 and no text"),
        ([{"prompt_id": 3.0, "ocr_results": "x"}], ":1: prompt_id is 3.0; it must be a whole number"),
        ([{"prompt_id": True, "ocr_results": "x"}], ":1: prompt_id is True; it must be a whole number"),
        ([{"prompt_id": 999, "ocr_results": "x"}], ":1: prompt_id 999 is no prompt of the data"),
        ([{"image": "999.png", "ocr_results": "x"}], ":1: prompt_id 999 is no prompt of the data"),
        ([], "holds no answers for 1 of 1 prompts, first 'en-3'"),
        (
            [{"prompt_id": 3, "ocr_results": "x", "prompt": "other"}],
            ":1: prompt is another than the data have for prompt",
        ),
        (
            [{"prompt_id": 3, "ocr_results": "x", "ocr_gt": ["SHUT"]}],
            ":1: ocr_gt is another than the data have for pro",
        ),
        ([{"image": "3.png", "ocr_results": "x", "prompt": "other"}], ":1: prompt is another .* of the other language"),
        (
            [{"image": "a/3.png", "ocr_results": "x"}, {"image": "a/3.png", "ocr_results": "y"}],
            ":2: a/3.png appears twice .first in .*:1.",
        ),
        (
            [{"prompt_id": 3, "image_path": "b.png", "ocr_results": text} for text in ("x", "y")],
            ":2: b.png appears twice",
        ),
    ],
)
def test_damaged_records_are_told(tmp_path, lines, message):
    prompts = read_prompts(json.dumps(LINE), "t.jsonl", "en")
    with pytest.raises(ConfigError, match=message) as error:
        read_results(recorded(tmp_path / "run.jsonl", *lines), prompts)
    assert "\n" not in str(error.value)


def test_the_official_evaluations_own_file_is_read(tmp_path):
    """It has no prompt_id: the prompt's text names a prompt, or, where two have the same, the image's name."""
    texts = {3: "OPEN", 7: "all day", 12: "shut"}
    same = {3: "a sign", 7: "a sign", 12: "a door"}
    prompts = read_prompts(
        "\n".join(json.dumps({"prompt": same[n], "text": [text], "prompt_id": n}) for n, text in texts.items()),
        "t",
        "en",
    )
    lines = [
        {"image": image, "prompt": same[n], "ocr_gt": [texts[n]], "ocr_results": reading}
        for n, image, reading in (
            (12, "s/any.png", "SHUT"),
            (7, "s/7_2.png", "day"),
            (3, "s/3.png", "shut"),
        )
    ]
    found = read_results(recorded(tmp_path / "results_chunk0.jsonl", *lines), prompts).prompts
    assert {prompt.id: prompt.scores for prompt in found} == {"en-3": [0.0], "en-7": [0.5], "en-12": [1.0]}


def test_results_of_the_other_language_are_refused(tmp_path):
    """Both have the ids 0 to 159 and more: a perfect reading would score nothing."""
    prompts = {language: read(None, {"language": language}).prompts for language in ("en", "zh")}
    for language, other in (("en", "zh"), ("zh", "en")):
        lines = [
            {
                "prompt_id": p.metadata["prompt_id"],
                "ocr_gt": p.metadata["text"],
                "ocr_results": " ".join(p.metadata["text"]),
            }
            for p in prompts[other]
        ]
        path = recorded(tmp_path / "run.jsonl", *lines)
        assert {score for p in read_results(path, prompts[other]).prompts for score in p.scores} == {1.0}
        with pytest.raises(ConfigError, match=":1: ocr_gt is another than the data have for prompt_id 0; are these"):
            read_results(path, prompts[language])
    files = {language: read(None, {"language": language}).file for language in ("en", "zh")}
    with pytest.raises(ConfigError, match="longtext_zh.jsonl: the wanted texts are mostly Chinese; give .*=zh"):
        read(files["zh"], {})
    with pytest.raises(ConfigError, match="longtext_en.jsonl: the wanted texts hold no Chinese character; give .*=en"):
        read(files["en"], {"language": "zh"})


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\r", "\r\n"])
def test_what_is_written_is_read_whatever_separates_the_words(tmp_path, separator):
    prompts = read_prompts(json.dumps({**LINE, "text": ["OPEN", "all day"]}), "t.jsonl", "en")
    explained = {"found": 2, "wanted": 3, "reading": f"open{separator}day"}
    image = np.zeros((4, 4, 3), np.uint8)
    written = ScoredPrompt("a sign", prompts[0].metadata, [image], [2 / 3], [explained], "en-3")
    write_results(tmp_path / "run.jsonl", [written])
    (found,) = read_results(tmp_path / "run.jsonl", prompts).prompts
    assert found.explanations[0]["reading"] == f"open{separator}day" and found.scores == [pytest.approx(2 / 3)]


def test_lines_may_end_as_on_windows(tmp_path):
    path = tmp_path / "run.jsonl"
    path.write_bytes(b'{"prompt_id": 3, "ocr_results": "open"}\r\n\r\n')
    assert read_results(path, read_prompts(json.dumps(LINE), "t.jsonl", "en")).prompts[0].scores == [1.0]
