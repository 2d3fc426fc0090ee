"""Whatever a benchmark's files and a judge's answers hold: they are read, or refused in one line, and nothing else."""

import contextlib
import csv
import io
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blip3o_grpo.configs import ConfigError
from blip3o_grpo.rewards import RewardError
from blip3o_grpo.rewards.benchmarks import BenchmarkPrompt
from blip3o_grpo.rewards.dpg.questions import COLUMNS, as_metadata, questions_of, read_questions
from blip3o_grpo.rewards.dpg.results import read_results
from blip3o_grpo.rewards.judge.answers import YES, UnparseableError, labelled_numbers, whole_number
from blip3o_grpo.rewards.judge.options import JudgeOptions, judge_options
from blip3o_grpo.rewards.longtext.records import read_prompts
from blip3o_grpo.rewards.wise.records import KEYS, LEGACY, VERIFIED, read_records

TEXT = st.text(max_size=40)
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
NUMBER = st.sampled_from(["0", "1", "2", "1, 2", "-1", "x", "", "9" * 5000, "\u0663"]) | TEXT


@contextlib.contextmanager
def one_line(*errors):
    try:
        yield
    except errors as error:
        assert str(error) and "\n" not in str(error), error


@st.composite
def question_files(draw):
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(COLUMNS)
    for _ in range(draw(st.integers(0, 4))):
        columns = {"proposition_id": NUMBER, "dependency": NUMBER, "item_id": st.sampled_from(["a", "b", "c/d", ""])}
        writer.writerow([draw(columns.get(name, TEXT)) for name in COLUMNS])
    return out.getvalue()


@given(text=question_files() | TEXT, skip=st.booleans())
@settings(deadline=None)
def test_question_files(text, skip):
    with one_line(ConfigError):
        items, _ = read_questions(text, "dpg.csv", skip_first_row=skip)
        for item in items:
            assert questions_of(as_metadata(item)) == item.questions


@given(
    lines=st.lists(TEXT | st.just("a.png, (0, 0, 4, 4), Is it?, yes") | st.just("a.png, (0, 0, 4, 4), , "), max_size=5)
)
@settings(deadline=None)
def test_recorded_answers(lines, tmp_path_factory):
    file = tmp_path_factory.getbasetemp() / "detail.txt"
    file.write_text("\n".join(lines), encoding="utf-8", errors="replace")
    metadata = {"dpg": [{"id": 1, "parents": [], "category": "entity", "question": "Is it?"}]}
    with one_line(ConfigError):
        (found,) = read_results(file, [BenchmarkPrompt("a", "a", metadata)]).prompts
        assert set(found.scores) == {1.0} and len(found.scores) <= 4


@given(entries=st.lists(st.dictionaries(st.sampled_from(KEYS), ANY_JSON, min_size=4), max_size=3) | ANY_JSON)
@settings(deadline=None)
def test_wise_files(entries):
    for edition in (LEGACY, VERIFIED):
        with one_line(ConfigError):
            read_records(json.dumps(entries), "w.json", edition)


@given(record=st.fixed_dictionaries({"prompt": TEXT, "text": ANY_JSON, "prompt_id": ANY_JSON}) | ANY_JSON)
@settings(deadline=None)
def test_longtext_files(record):
    for language in ("en", "zh"):
        with one_line(ConfigError):
            read_prompts(json.dumps(record), "t.jsonl", language)


@pytest.mark.parametrize("form", [YES, whole_number(0, 2), labelled_numbers(("A", "B"), 0, 2)])
@given(text=TEXT | st.from_regex(r"(yes|no|[0-9]+|A: ?[0-9]\nB: ?[0-9])[!. ]*"))
@settings(deadline=None)
def test_answers(form, text):
    with contextlib.suppress(UnparseableError):
        value = form.read(text)
        for number in value.values() if isinstance(value, dict) else (value,):
            assert number in (0, 1, 2)


@given(
    values=st.dictionaries(st.sampled_from(list(JudgeOptions.__annotations__)) | TEXT, ANY_JSON, max_size=6) | ANY_JSON
)
@settings(deadline=None)
def test_blocks_of_a_judge(values):
    for more in ({}, {"url": "http://host/v1", "model": "m", "version": "1"}):
        with one_line(RewardError):
            judge_options({**values, **more} if isinstance(values, dict) else values, "judge")
