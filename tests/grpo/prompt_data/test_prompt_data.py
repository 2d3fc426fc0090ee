"""Training prompts: the benchmark's templates and records, proportions, repeatability, and no test prompt inside."""

import json
import os
import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from blip3o_grpo.configs import ConfigError
from blip3o_grpo.prompt_data import geneval_prompts, text_prompts
from blip3o_grpo.prompt_data.cli import app
from blip3o_grpo.prompt_data.geneval_prompts import CHOICES, DEFAULT_SHARES, generate, make_record, render, split_count
from blip3o_grpo.prompt_data.overlap import HeldOut, find_overlaps, meaning, normalised
from blip3o_grpo.rewards.geneval.records import TAGS, parse_record
from blip3o_grpo.rewards.ocr.quotes import quoted_spans
from blip3o_grpo.rewards.types import RewardError
from blip3o_grpo.rollout.prompts import load_prompts
from blip3o_grpo.rollout.types import Prompt

DATA = Path(os.environ.get("BLIP3O_GRPO_TEST_DATA", Path(__file__).parents[4] / "shared" / "data"))

EXAMPLES = [
    {"tag": "single_object", "include": [{"class": "umbrella", "count": 1}], "prompt": "a photo of an umbrella"},
    {
        "tag": "two_object",
        "include": [{"class": "fork", "count": 1}, {"class": "oven", "count": 1}],
        "prompt": "a photo of a fork and an oven",
    },
    {
        "tag": "counting",
        "include": [{"class": "bus", "count": 3}],
        "exclude": [{"class": "bus", "count": 4}],
        "prompt": "a photo of three buses",
    },
    {
        "tag": "colors",
        "include": [{"class": "apple", "count": 1, "color": "orange"}],
        "prompt": "a photo of an orange apple",
    },
    {
        "tag": "position",
        "include": [{"class": "airplane", "count": 1}, {"class": "dog", "count": 1, "position": ["left of", 0]}],
        "prompt": "a photo of a dog left of an airplane",
    },
    {
        "tag": "color_attr",
        "include": [{"class": "elephant", "count": 1, "color": "red"}, {"class": "tv", "count": 1, "color": "orange"}],
        "prompt": "a photo of a red elephant and an orange tv",
    },
]


def official(name):
    path = DATA / name
    if not path.is_file():
        pytest.skip(f"the published test data is not here ({path}); BLIP3O_GRPO_TEST_DATA names its folder")
    return path


def as_prompt(record):
    return Prompt(id=record["prompt"], text=record["prompt"], metadata=record)


def run(*args):
    return CliRunner().invoke(app, [str(arg) for arg in args])


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example["tag"])
def test_template_gives_the_prompt_of_a_record(example):
    assert render(example["tag"], example["include"]) == example["prompt"]


def test_every_official_prompt_follows_from_its_record_and_can_be_drawn():
    path = official("geneval/evaluation_metadata.jsonl")
    lines = path.read_text(encoding="utf-8").splitlines()
    every = {
        tag: {make_record(tag, geneval_prompts._choices(tag, n))["prompt"] for n in range(size)}
        for tag, size in sizes().items()
        if tag != "color_attr"
    }
    assert len(lines) == 553
    for line in lines:
        record = json.loads(line)
        assert render(record["tag"], record["include"]) == record["prompt"]
        assert list(record) == list(next(r for r in EXAMPLES if r["tag"] == record["tag"]))
        assert record["prompt"] in every.get(record["tag"], [record["prompt"]])


def test_class_names_are_the_official_ones():
    names = official("geneval/object_names.txt").read_text(encoding="utf-8").split("\n")
    assert [name for name in names if name] == geneval_prompts.CLASSES


def sizes():
    return {tag: len(values[0]) * (len(values[1]) if len(values) > 1 else 1) for tag, values in CHOICES.items()}


@pytest.mark.parametrize("tag", TAGS)
def test_generated_records_have_the_official_form(tag):
    for record in generate(100 if tag != "single_object" else 80, seed=3, shares={tag: 1}):
        example = next(r for r in EXAMPLES if r["tag"] == tag)
        assert list(record) == list(example)
        assert [set(clause) for clause in record["include"]] == [set(clause) for clause in example["include"]]
        assert record["prompt"] == render(tag, record["include"])
        parsed = parse_record(record, class_names=geneval_prompts.CLASSES)
        if tag == "counting":
            assert record["exclude"] == [{"class": parsed.include[0].class_name, "count": parsed.include[0].count + 1}]
        if tag == "position":
            relation, target = parsed.include[1].position
            assert target == 0
            assert f"{parsed.include[1].class_name} {relation} a" in record["prompt"]


def test_same_seed_gives_the_same_records_and_another_seed_others():
    first = generate(300, seed=1)
    assert generate(300, seed=1) == first
    assert generate(300, seed=2) != first
    assert (
        text_prompts.generate(300, seed=1) == text_prompts.generate(300, seed=1) != text_prompts.generate(300, seed=2)
    )


def test_default_proportions():
    tags = Counter(record["tag"] for record in generate(1700, seed=0))
    assert tags == {tag: 100 * share for tag, share in DEFAULT_SHARES.items()}


@settings(deadline=None)
@given(
    count=st.integers(1, 5000),
    shares=st.dictionaries(st.sampled_from(TAGS), st.floats(0, 1e6), min_size=1).filter(lambda s: sum(s.values()) > 0),
)
def test_split_adds_up_and_is_within_one_of_the_exact_share(count, shares):
    quotas = split_count(count, shares)
    assert sum(quotas.values()) == count
    for tag, quota in quotas.items():
        assert abs(quota - count * (shares.get(tag, 0) / sum(shares.values()))) < 1 + 1e-6


def test_a_tag_repeats_only_when_all_its_prompts_were_used_and_stays_loadable(tmp_path):
    records = generate(500, seed=0, shares={"counting": 1})
    times = Counter(record["prompt"] for record in records)
    assert len(times) == sizes()["counting"] == 234
    assert set(times.values()) == {2, 3}
    file = tmp_path / "train.jsonl"
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    prompts = load_prompts(file)
    assert len({prompt.id for prompt in prompts}) == 500
    assert all(set(prompt.metadata) == {"tag", "include", "exclude"} for prompt in prompts)


@pytest.mark.parametrize(
    ("count", "shares", "message"),
    [
        (0, None, "at least 1"),
        (5, {"color": 1}, "unknown GenEval tag 'color'"),
        (5, {"colors": -1}, "share of colors"),
        (5, {"colors": float("nan")}, "share of colors"),
        (5, {"colors": 0}, "no tag has a share"),
    ],
)
def test_unusable_shares_are_named(count, shares, message):
    with pytest.raises(ConfigError, match=message):
        generate(count, 0, shares)


def test_excluded_prompts_never_come_and_an_exhausted_tag_is_an_error():
    held_out = HeldOut(as_prompt(record) for record in generate(200, seed=9, shares={"counting": 1}))
    made = generate(100, seed=0, shares={"counting": 1}, held_out=held_out)
    assert len({record["prompt"] for record in made}) == 34
    assert not any(held_out.find(record["prompt"], record) for record in made)
    everything = HeldOut(as_prompt(record) for record in generate(80, seed=9, shares={"single_object": 1}))
    with pytest.raises(ConfigError, match="no single_object prompt is left: all 80"):
        generate(1, 0, {"single_object": 1}, everything)


@pytest.mark.parametrize(
    "other",
    [
        'A SIGN  that says\t"Don’t stop"!',
        "a sign that says “Don't Stop”",
        "a sign, that says „don´t stop‟.",
        "ａ sign that says «dont stop»",
    ],
)
def test_normalised_text_ignores_case_space_and_punctuation(other):
    assert normalised(other) == normalised('a sign that says "Don\'t Stop"')


@pytest.mark.parametrize(
    ("one", "other"), [("a red cat", "a red bat"), ("Gate 3", "Gate 4"), ("!!!", "???"), ("$5", "€5")]
)
def test_normalised_text_keeps_what_differs(one, other):
    assert normalised(one) != normalised(other)


@settings(deadline=None)
@given(st.lists(st.sampled_from(list("abcxyz019é漢")), min_size=1), st.data())
def test_normalised_text_is_its_letters_and_digits(letters, data):
    spaced = [c + data.draw(st.sampled_from(["", " ", "\t", "\u00a0", ".", "—", "”", "’", "`"])) for c in letters]
    cased = [data.draw(st.sampled_from([c, c.upper()])) for c in spaced]
    assert normalised("".join(cased)) == "".join(letters)


def test_meaning_is_independent_of_wording_order_and_tag():
    dog_left = EXAMPLES[4]
    mirrored = {
        "include": [{"count": 1, "class": "dog"}, {"class": "airplane", "count": 1, "position": ["right of", 0]}]
    }
    turned = {**mirrored, "include": [mirrored["include"][0], {**mirrored["include"][1], "position": ["left of", 0]}]}
    assert meaning(dog_left, "") == meaning(mirrored, "") != meaning(turned, "")
    two = EXAMPLES[1]
    assert meaning(two, "") == meaning({"include": two["include"][::-1], "tag": "other"}, "")
    assert meaning(EXAMPLES[2], "") != meaning({"include": EXAMPLES[2]["include"]}, "")
    assert meaning({"target_text": "x"}, "") is None


def test_overlaps_are_listed_with_their_reason():
    test = [as_prompt(EXAMPLES[1]), Prompt("1", 'A board reading "Exit"')]
    same_words = Prompt("2", "a board reading “EXIT”.")
    same_meaning = Prompt("3", "an oven next to one fork", {"include": EXAMPLES[1]["include"][::-1]})
    fine = Prompt("4", "a photo of a fork", EXAMPLES[0])
    found = find_overlaps([fine, same_words, same_meaning], test)
    assert [(o.prompt, o.reason) for o in found] == [
        (same_words.text, "same words"),
        (same_meaning.text, "same meaning"),
    ]
    with pytest.raises(RewardError, match="prompt 'bad'.*count"):
        find_overlaps([Prompt("5", "bad", {"include": [{"class": "dog"}]})], test)


def test_text_prompts_are_many_and_distinct_and_quote_their_target():
    records = text_prompts.generate(20_000, seed=0)
    assert len({normalised(record["prompt"]) for record in records}) == 20_000
    lengths = Counter(len(record["target_text"].split()) for record in records)
    assert set(lengths) == {1, 2, 3, 4, 5, 6}
    assert min(lengths.values()) > 0.12 * 20_000
    for record in records:
        assert quoted_spans(record["prompt"]) == [record["target_text"]]
        assert record["prompt"].isascii() and record["prompt"].endswith(".") and "  " not in record["prompt"]
        assert "{" not in record["prompt"]
        assert not any(f" a {vowel}" in record["prompt"].split('"')[0] for vowel in "aeiou")


def test_excluded_text_prompts_never_come():
    records = text_prompts.generate(50, seed=0)
    held_out = HeldOut(Prompt(id="", text=record["prompt"].upper()) for record in records[::2])
    again = text_prompts.generate(50, seed=0, held_out=held_out)
    assert again[:25] == records[1::2]
    assert not any(held_out.find(record["prompt"], record) for record in again)


def test_text_prompts_stop_when_there_are_no_more(monkeypatch):
    monkeypatch.setattr(text_prompts, "TEMPLATES", dict.fromkeys(range(1, 7), [("notice", "Exit")]))
    monkeypatch.setattr(text_prompts, "PATIENCE", 20)
    monkeypatch.setattr(text_prompts, "STYLES", [""])
    with pytest.raises(ConfigError, match="distinct text prompts could be made"):
        text_prompts.generate(10_000, seed=0)


def test_no_generated_prompt_is_in_the_published_test_files(tmp_path):
    for command, name in (("geneval", "geneval/evaluation_metadata.jsonl"), ("text", "ocr/test.txt")):
        out, test = tmp_path / f"{command}.jsonl", official(name)
        made = run(command, "--out", out, "--count", 3000, "--seed", 5, "--exclude-file", test)
        assert made.exit_code == 0, made.output
        assert len(load_prompts(out)) == 3000
        assert run("check", out, test).exit_code == 0
        if command == "geneval":  # without the exclusion there would be some
            every = tmp_path / "every.jsonl"
            run(command, "--out", every, "--count", 3000, "--seed", 5)
            checked = run("check", every, test)
            assert checked.exit_code == 1
            assert "same words: a photo of" in checked.output and "same meaning: a photo of" in checked.output


def test_command_writes_the_same_file_again_and_whole(tmp_path):
    first, second = tmp_path / "a" / "x.jsonl", tmp_path / "b" / "x.jsonl"
    shares = ("--tag-share", "counting=0.25", "--tag-share", "position=0.75")
    for out in (first, second):
        result = run("geneval", "--out", out, "--count", 200, "--seed", 7, *shares)
        assert result.exit_code == 0, result.output
        assert "counting 50, position 150" in result.output
    assert first.read_bytes() == second.read_bytes()
    assert [path.name for path in first.parent.iterdir()] == ["x.jsonl"]


@pytest.mark.parametrize("command", ["geneval", "text"])
def test_held_out_prompts_share_neither_words_nor_meaning_nor_quoted_texts_with_training(command, tmp_path):
    train, heldout, again = tmp_path / "train.jsonl", tmp_path / "heldout.jsonl", tmp_path / "again.jsonl"
    made = run(command, "--out", train, "--count", 1500, "--heldout-out", heldout, "--heldout-count", 100)
    assert made.exit_code == 0, made.output
    assert str(train) in made.output and str(heldout) in made.output
    assert (len(load_prompts(train)), len(load_prompts(heldout))) == (1500, 100)
    assert run("check", train, heldout).exit_code == 0
    quoted = [{prompt.metadata.get("target_text") for prompt in load_prompts(file)} for file in (train, heldout)]
    assert command == "geneval" or not quoted[0] & quoted[1]
    run(command, "--out", again, "--count", 5, "--heldout-out", tmp_path / "more.jsonl", "--exclude-file", heldout)
    assert run("check", tmp_path / "more.jsonl", heldout).exit_code == 0  # files to exclude are kept out of both


def test_an_existing_file_stays_unless_it_is_the_same(tmp_path):
    """No file is overwritten, and a refused command writes neither of its files."""
    out, heldout = tmp_path / "train.jsonl", tmp_path / "heldout.jsonl"
    command = ("text", "--count", 5, "--out", out, "--heldout-out", heldout)
    for _ in range(2):
        assert run(*command).exit_code == 0
    heldout.write_text("a cup\n", encoding="utf-8")
    out.unlink()
    refused = run(*command)
    assert refused.exit_code == 2 and f"{heldout}: is there and holds something else" in refused.stderr
    assert heldout.read_text(encoding="utf-8") == "a cup\n" and not out.exists()
    os.mkfifo(tmp_path / "pipe.jsonl")
    assert "a pipe, not a regular file" in run("text", "--count", 5, "--out", tmp_path / "pipe.jsonl").stderr


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--count", 0, "--out", "x.jsonl"], "'--count'"),
        (["--count", 5, "--out", "x.txt"], "end in .jsonl"),
        (["--count", 5, "--out", f"{'x' * 300}.jsonl"], "File name too long"),
        (["--count", 5, "--out", "x.jsonl", "--tag-share", "counting"], "write tag=number"),
        (["--count", 5, "--out", "x.jsonl", "--tag-share", "colors=1", "--tag-share", "colors=2"], "twice"),
        (["--count", 5, "--out", "x.jsonl", "--exclude-file", "none.txt"], "no such prompt file"),
        (["--count", 5, "--out", "x.jsonl", "--heldout-out", "./x.jsonl"], "is the file of the training prompts"),
        (["--count", 5, "--out", "x.jsonl", "--heldout-out", "y.txt"], "end in .jsonl"),
        (["--count", 5, "--out", "x.jsonl", "--heldout-out", "y.jsonl", "--heldout-count", 0], "'--heldout-count'"),
        (["--count", 5, "--out", "x.jsonl", "--heldout-count", 3], "--heldout-out"),
    ],
)
def test_bad_arguments_of_the_command_write_nothing(args, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run("geneval", *args)
    assert result.exit_code == 2
    assert message in result.stderr
    assert not list(tmp_path.iterdir())


def test_check_lists_offenders_with_exit_code_one(tmp_path):
    train, test = tmp_path / "train.txt", tmp_path / "test.txt"
    train.write_text('a cup\na sign that says "Hello"\n', encoding="utf-8")
    test.write_text("a plate\na sign that says “hello”\n", encoding="utf-8")
    result = run("check", train, test)
    assert result.exit_code == 1
    assert 'same words: a sign that says "Hello"' in result.output
    assert "1 of 2 training prompts are among 2 test prompts" in result.output


def test_drawing_uses_only_the_given_generator():
    state = random.getstate()
    text_prompts.draw(random.Random(0))
    generate(10, seed=0)
    assert random.getstate() == state
