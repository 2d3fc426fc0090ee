"""Suites in which a policy reads: numbers by hand, mistakes in one line, and both suites on small policies."""

import json
import math

import pytest
from PIL import Image
from typer.testing import CliRunner

import blip3o_grpo as bg
from blip3o_grpo.cli import app
from blip3o_grpo.configs import ConfigError, dump_config
from blip3o_grpo.policies import BLIP3oNext, random_policy
from blip3o_grpo.reading.questions import parse_questions
from blip3o_grpo.reading.result import ReadingReport, contributions
from blip3o_grpo.reading.tables import reading_json
from blip3o_grpo.reading.text import KL, NLL
from blip3o_grpo.reading.understanding import ACCURACY, SIGNS_AND_SHAPES
from blip3o_grpo.run.folder import RunFolder

QUESTION = {"id": "a", "image": "a.png", "question": "Which colour?", "choices": ["red", "blue"], "answer": "red"}


@pytest.fixture(scope="module")
def other_path(tmp_path_factory):
    """Another random policy of the same vocabulary."""
    return random_policy(tmp_path_factory.mktemp("policy") / "other", num_image_tokens=64, seed=9)


@pytest.fixture
def texts(tmp_path):
    file = tmp_path / "texts.txt"
    file.write_text("\n".join(f"Sentence number {number} of six, which is short." for number in range(6)))
    return file


def ask(folder, *records):
    Image.new("RGB", (20, 20), "red").save(folder / "a.png")
    file = folder / "questions.jsonl"
    file.write_text("\n".join(map(json.dumps, records)))
    return file


def test_a_number_is_the_sum_of_parts_by_the_sum_of_wholes():
    values = contributions({"m": {"a": (3.0, 1.0), "b": (1.0, 3.0), "c": (2.0, 2.0), "d": (2.0, 2.0)}})
    report = ReadingReport("text", ("p",), {}, None, (values,), ())
    assert report.estimates(0)["m"].mean == pytest.approx(8 / 8)
    assert report.estimates(0)["m"].n == 4 and report.differences() == {}


def test_text_drift_is_measured_from_the_starting_policy(policy_path, other_path, texts):
    same = bg.read_suite(policy_path, "text", compare=policy_path, data=texts)
    assert same.estimates(0)[KL].mean == 0 and same.differences()[NLL].mean == 0
    apart = bg.read_suite(policy_path, "text", compare=other_path, data=texts)
    found = apart.estimates(0)
    assert found[KL].mean > 0.001 and KL not in apart.estimates(1)
    told = reading_json(apart)
    assert told["estimates"]["perplexity"]["mean"] == pytest.approx(math.exp(found[NLL].mean))
    assert told["estimates"]["perplexity"]["high"] == pytest.approx(math.exp(found[NLL].high))
    assert told["difference"][NLL]["n"] == 6 and told["compare"]["policy"] == str(other_path)
    # The mean over tokens, computed one text at a time by transformers.
    policy = BLIP3oNext.from_pretrained(policy_path, parts=("ar",))
    space, total, count = policy.image_tokens, 0.0, 0
    for line in texts.read_text().splitlines():
        import torch

        ids = torch.tensor([policy.prompts.encode_text(line)])
        with torch.no_grad():
            logits = policy.ar(ids).logits[0, :-1]
        logits[:, space.start : space.stop] = -torch.inf
        total -= logits.log_softmax(-1).gather(1, ids[0, 1:, None]).sum().item()
        count += ids.shape[1] - 1
    assert found[NLL].mean == pytest.approx(total / count, abs=1e-4)


def test_a_run_is_compared_with_what_it_started_from(make_config, policy_path, other_path, texts):
    folder = RunFolder(make_config().run_dir)
    folder.config.parent.mkdir(exist_ok=True)
    folder.config.write_text(dump_config(make_config(policy={"path": str(other_path)})))
    folder.policy.symlink_to(policy_path)
    report = bg.read_suite(folder.path, "text", data=texts, limit=3)
    assert report.policies == (str(folder.path), str(other_path)) and report.estimates(0)[KL].n == 3
    assert any(note.startswith("SUBSET: 3 of 6, drawn with seed 0") for note in report.notes)


def test_without_a_starting_policy_only_surprise_is_known(policy_path, texts):
    result = CliRunner().invoke(app, ["eval", str(policy_path), "--suite", "text", "--data", str(texts)])
    assert result.exit_code == 0, result.output
    assert "perplexity" in result.stdout and "KL from" not in result.stdout
    assert "No starting policy is known" in result.stdout


def test_questions_are_answered_by_the_likeliest_choice(policy_path, tmp_path):
    words = ["red", "blue", "a very long answer that is most unlikely"]
    records = [{**QUESTION, "id": word, "choices": words, "answer": word} for word in words]
    report = bg.read_suite(policy_path, "understanding", data=ask(tmp_path, *records))
    answers = report.values[0][ACCURACY]
    assert sorted(answers.values()) == [0, 0, 1] and answers[words[2]] == 0
    assert report.notes == ("Guessing scores 0.333.",)


def test_the_questions_that_come_along_are_whole():
    questions = parse_questions(SIGNS_AND_SHAPES.read_text(), SIGNS_AND_SHAPES)
    assert len(questions) == 60 and {len(question.choices) for question in questions.values()} == {4}
    first = [question.choices.index(question.answer) for question in questions.values()]
    assert all(first.count(place) >= 8 for place in range(4))  # no place is favoured


REFUSED = {
    "no object": ("[]", "expected an object"),
    "no JSON": ("{", "not valid JSON"),
    "unknown key": ({**QUESTION, "choice": []}, "unknown key 'choice'; did you mean 'choices'?"),
    "no question": ({**QUESTION, "question": " "}, "the key 'question' is missing or holds no text"),
    "one choice": ({**QUESTION, "choices": ["red"]}, "`choices` must be a list of two texts or more"),
    "twice": ({**QUESTION, "choices": ["red", "red"]}, "the choice 'red' is there twice"),
    "no answer": ({**QUESTION, "answer": "rod"}, "the answer 'rod' is none of the choices; did you mean 'red'?"),
    "no picture": ({**QUESTION, "image": "b.png"}, "b.png: not a readable image"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_broken_question_is_one_line_with_file_and_line(tmp_path, case):
    record, message = REFUSED[case]
    file = ask(tmp_path, QUESTION)
    text = file.read_text() + "\n" + (record if isinstance(record, str) else json.dumps(record))
    with pytest.raises(ConfigError) as caught:
        parse_questions(text, file)
    assert str(caught.value).startswith(f"{file}:2: ") and message in str(caught.value)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--suite", "texts"], "unknown suite 'texts'; did you mean 'text'?"),
        (["--suite", "text", "--images", "2"], "--images: suite 'text' draws no images; it takes --data, --limit"),
        (["--suite", "text", "--data", "gone.txt"], "--data: gone.txt: no such prompt file"),
        (["--suite", "text", "--limit", "999"], "--limit 999: the data hold 240 texts"),
        (["--suite", "understanding", "--data", "gone.jsonl"], "gone.jsonl: no such file; --data names a file of"),
        (["--suite", "understanding", "--compare", "nowhere"], "no such folder"),
    ],
)
def test_a_mistake_is_one_line_before_anything_loads(monkeypatch, policy_path, words, message):
    monkeypatch.setattr(BLIP3oNext, "from_pretrained", lambda *_, **__: pytest.fail("a model was loaded"))
    result = CliRunner().invoke(app, ["eval", str(policy_path), *words])
    assert result.exit_code == 2 and message in " ".join(result.stderr.split()), result.stderr


@pytest.mark.parametrize("suite", ["text", "understanding"])
def test_damaged_weights_are_no_number(suite, tmp_path):
    """The likeliest of NaN would be some choice, and so right or wrong."""
    policy = BLIP3oNext.from_pretrained("tiny", parts=("ar", "head", "vision"))
    policy.ar.model.norm.weight.data.fill_(math.nan)
    policy.save_pretrained(tmp_path / "damaged")
    result = CliRunner().invoke(app, ["eval", str(tmp_path / "damaged"), "--suite", suite, "--limit", "4"])
    assert result.exit_code == 2 and "damaged" in result.stderr and "nan" in result.stderr.lower()
