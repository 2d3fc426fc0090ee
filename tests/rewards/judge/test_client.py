"""A judge's answers over real HTTP, from a minimal server that speaks the protocol; there is no model behind it."""

import json
import time
from pathlib import Path

import numpy as np
import pytest
from fastapi.responses import JSONResponse

from blip3o_grpo.rewards import RewardError
from blip3o_grpo.rewards.http import transport
from blip3o_grpo.rewards.judge.answers import YES, Form, read_transcript, whole_number
from blip3o_grpo.rewards.judge.client import Judge, Question
from blip3o_grpo.rewards.judge.options import judge_name, judge_options, load_judge
from blip3o_grpo.rewards.judge.usage import total
from tests.rewards.judge.server import TOKEN, block, judging


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(transport, "BACKOFF_S", 0.001)
    monkeypatch.setenv("JUDGE_KEY", TOKEN)


def image(level):
    return np.full((4, 6, 3), level, np.uint8)


def asked(*levels, text="Is it bright?", form=YES):
    return [Question(text, image(level), form) for level in levels]


def bright(question, picture):
    assert picture.shape == (4, 6, 3)
    return "yes" if picture.mean() > 100 else "no"


def judge(served, **more):
    return Judge(judge_options(block(served, **more), "judge"))


def test_every_question_gets_its_own_answer_at_temperature_0():
    with judging(bright) as served:
        answers = judge(served).ask(asked(200, 10, 150))
    assert [answer.value for answer in answers] == [1.0, 0.0, 1.0]
    assert all(body["temperature"] == 0 and body["max_tokens"] == 8 for body in served.requests)
    assert total(answer.usage for answer in answers).calls == 3


class Escaped(JSONResponse):
    """As servers write that escape all but ASCII, half of a surrogate pair included."""

    def render(self, content):
        return json.dumps(content).encode()


def test_half_of_a_surrogate_pair_is_no_answer(tmp_path):
    """No file could hold it: results would be lost after everything was paid for."""
    says = iter(["OPEN \ud83d", "OPEN \ud83d", "OPEN \ud83d\ude00"])
    reply = lambda *_: Escaped({"choices": [{"message": {"content": next(says)}, "finish_reason": "stop"}]})  # noqa: E731
    with judging(reply) as served:
        asking = judge(served, retries=1, cache=str(tmp_path))
        with pytest.raises(RewardError, match=r"answered 'OPEN \?' instead of any text \(2 calls\)"):
            asking.ask(asked(1, form=Form("any text", read_transcript, 8)))
        assert asking.ask(asked(1, form=Form("any text", read_transcript, 8)))[0].value == "OPEN \U0001f600"


def test_tokens_and_cost_are_counted():
    with judging(bright) as served:
        usage = total(a.usage for a in judge(served, price_in=2.0, price_out=10.0).ask(asked(1, 2)))
    assert (usage.answers, usage.tokens_in, usage.tokens_out, usage.uncounted) == (2, 200, 4, 0)
    assert usage.cost == pytest.approx((200 * 2 + 4 * 10) / 1e6)
    beyond = {"prompt_tokens": 10**400, "completion_tokens": 2}
    with judging(bright, usage=beyond) as served:
        usage = total(a.usage for a in judge(served, price_in=2.0).ask(asked(1)))
    assert (usage.calls, usage.uncounted, usage.tokens_in, usage.cost) == (1, 1, 0, None)
    with judging(bright, usage=None) as served:
        usage = total(a.usage for a in judge(served, price_in=2.0).ask(asked(1, 2)))
    assert (usage.calls, usage.uncounted, usage.cost) == (2, 2, None)


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("Yes!", "'Yes!'"),
        ("The image clearly shows a bright sky, so yes.", "'The image clearly"),
        ("", "nothing"),
        (None, "nothing"),
        ("yes\x1b[2J", r"'yes\?\[2J'"),
    ],
)
def test_prose_yes_with_a_mark_and_nothing_are_asked_again_and_then_an_error(said, shown):
    with judging(lambda *_: said) as served:
        with pytest.raises(
            RewardError, match=f"tiny-judge at .* answered {shown}.* instead of exactly yes or no"
        ) as error:
            judge(served, retries=2).ask(asked(1))
        assert "(3 calls); the question was 'Is it bright?'" in str(error.value)
        assert "\n" not in str(error.value)
    assert served.questions[0] == "Is it bright?"
    assert served.questions[1:] == ["Is it bright?\n\nAnswer with exactly yes or no, and nothing else."] * 2


def test_an_answer_that_comes_in_form_when_asked_again_counts_and_both_calls_are_counted(tmp_path):
    with judging(lambda question, _: "no" if "nothing else" in question else "No, it is dark.") as served:
        (answer,) = judge(served, cache=str(tmp_path)).ask(asked(1))
        assert (answer.value, answer.usage.calls, answer.usage.answers) == (0.0, 2, 1)
        (again,) = judge(served, cache=str(tmp_path)).ask(asked(1))
        assert (again.value, again.usage.calls, again.usage.cached) == (0.0, 0, 1)


def test_an_answer_that_was_cut_off_is_none():
    with (
        judging(lambda *_: "1", finish="length") as served,
        pytest.raises(RewardError, match="'1' .cut off. instead of"),
    ):
        judge(served, retries=0).ask(asked(1, form=whole_number(0, 20)))


def test_a_second_run_asks_nothing(tmp_path):
    with judging(bright) as served:
        first = judge(served, cache=str(tmp_path)).ask(asked(200, 10))
        second = judge(served, cache=str(tmp_path)).ask(asked(200, 10))
        assert [a.value for a in first] == [a.value for a in second] == [1.0, 0.0]
        assert len(served.requests) == 2
        usage = total(a.usage for a in second)
        assert (usage.answers, usage.cached, usage.calls, usage.tokens_in) == (2, 2, 0, 0)
        # Another version of the judge, another question and another image are asked.
        judge(served, cache=str(tmp_path), version="2").ask(asked(200))
        judge(served, cache=str(tmp_path)).ask(asked(200, text="Is it dark?"))
        judge(served, cache=str(tmp_path)).ask(asked(201))
        judge(served, cache=str(tmp_path), extra={"seed": 3}).ask(asked(200))
        assert len(served.requests) == 6
        assert served.requests[-1]["seed"] == 3
    files = list(tmp_path.rglob("*.json"))
    assert len(files) == 6 and not list(tmp_path.rglob("*.tmp"))
    assert {json.loads(file.read_text())["model"] for file in files} == {"tiny-judge"}


def test_damaged_answers_in_the_cache_are_asked_again(tmp_path):
    with judging(bright) as served:
        for damage in ("", "{", "[1]", '{"answer": 1}', '{"answer": "maybe"}'):
            judge(served, cache=str(tmp_path)).ask(asked(200))
            (file,) = tmp_path.rglob("*.json")
            file.write_text(damage)
            served.requests.clear()
            (answer,) = judge(served, cache=str(tmp_path)).ask(asked(200))
            assert (answer.value, len(served.requests)) == (1.0, 1)


def test_what_was_answered_before_a_failure_is_kept(tmp_path):
    def dark_fails(_, picture):
        return "yes" if picture.mean() > 100 else "hm"

    with judging(dark_fails) as served:
        with pytest.raises(RewardError, match="'hm'"):
            judge(served, cache=str(tmp_path), retries=0, concurrency=1).ask(asked(200, 10))
        assert len(list(tmp_path.rglob("*.json"))) == 1


def test_so_many_requests_are_open_and_no_more():
    with judging(bright, delay_s=0.1) as served:
        judge(served, concurrency=3).ask(asked(*range(9)))
    assert served.most_open == 3


def test_a_model_that_the_server_does_not_have_is_named_with_the_nearest():
    with judging(bright, models=("tiny-judge", "other")) as served:
        with pytest.raises(RewardError, match="has no model 'tiny-juge'; did you mean 'tiny-judge'?"):
            judge(served, model="tiny-juge")
        with pytest.raises(RewardError, match="has no model 'gpt-4o-2024-05-13'; it has: 'tiny-judge', 'other'"):
            judge(served, model="gpt-4o-2024-05-13")
    with judging(bright, lists=False) as served:  # a server that lists nothing says so at the first question
        with pytest.raises(RewardError, match="is the model 'tiny-juge' there?.*404.*does not exist"):
            judge(served, model="tiny-juge").ask(asked(1))
        assert judge(served).ask(asked(1))[0].value == 0.0


def test_a_token_that_is_refused_missing_or_expired_is_one_line_and_never_shown(monkeypatch):
    with judging(bright, token=TOKEN) as served:
        assert judge(served, token_env="JUDGE_KEY").ask(asked(1))[0].value == 0.0
        with pytest.raises(RewardError, match="it wants a token; name the variable that holds it in token_env"):
            judge(served)
        found = judge(served, token_env="JUDGE_KEY")
        monkeypatch.setenv("JUDGE_KEY", "expired-token-of-yesterday")
        with pytest.raises(
            RewardError, match="the token in JUDGE_KEY is wrong, has expired or may not use it"
        ) as error:
            judge(served, token_env="JUDGE_KEY")
        assert "yesterday" not in str(error.value) and "[JUDGE_KEY]" in str(error.value)
        assert "\n" not in str(error.value)
        assert found.ask(asked(2))[0].value == 0.0
        monkeypatch.delenv("JUDGE_KEY")
        with pytest.raises(RewardError, match="the environment variable JUDGE_KEY is not set"):
            judge(served, token_env="JUDGE_KEY")


def test_one_small_question_finds_what_a_list_of_models_does_not(monkeypatch):
    with judging(lambda *_: "It may be.", token=TOKEN, lists_to_all=True) as served:
        found = judge(served, token_env="JUDGE_KEY", price_in=1.0)
        usage = found.try_out()  # any words will do
        assert (usage.answers, usage.calls, usage.tokens_in, usage.cost) == (0, 1, 100, pytest.approx(1e-4))
        assert served.questions == ["Is this image grey? Answer with exactly yes or no."]
        monkeypatch.setenv("JUDGE_KEY", "expired")
        with pytest.raises(RewardError, match="the token in JUDGE_KEY is wrong, has expired or may not use it"):
            judge(served, token_env="JUDGE_KEY").try_out()
    with judging(bright) as served:
        outside = judge(served, url=served.url.removesuffix("/v1"))
        with pytest.raises(RewardError, match=r"does the url end in /v1\? is the model 'tiny-judge' there\?.*404"):
            outside.try_out()
    with judging(lambda _, picture: "yes" if picture.shape == (64, 64, 3) else 1, lists=False) as served:
        assert judge(served).try_out().calls == 1


def test_a_refusal_is_quoted_and_no_answer():
    said = {"choices": [{"message": {"content": None, "refusal": "I can't judge\npeople."}, "finish_reason": "stop"}]}
    with judging(lambda *_: said) as served:
        with pytest.raises(
            RewardError, match=r"answered .I can't judge people\.. \(a refusal\) instead of exactly yes"
        ):
            judge(served, retries=1).ask(asked(1))
        transcript = Form("the text", read_transcript, 64)
        with pytest.raises(RewardError, match="a refusal"):
            judge(served, retries=0).ask(asked(1, form=transcript))


def test_a_dead_server_is_named_and_scores_nothing():
    with judging(bright) as served:
        found = judge(served)
    for action in (lambda: judge(served), lambda: found.ask(asked(1))):
        with pytest.raises(
            RewardError, match="did not answer: connection refused .*; start the judge's server, or raise"
        ):
            action()


def test_a_slow_server_ends_at_the_deadline():
    with judging(bright, delay_s=5) as served:
        start = time.monotonic()
        with pytest.raises(
            RewardError, match=r"took longer than 0.2 s \(2 attempts.*raise timeout \(now 0.2\), or lower"
        ):
            judge(served, timeout=0.2, retries=1).ask(asked(1))
        assert time.monotonic() - start < 4


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"choices": []}, "did not answer as an OpenAI-compatible server does"),
        ({"answer": "yes"}, "did not answer as an OpenAI-compatible server does: {.answer.: ?.yes.}"),
        ({"choices": [{"message": {"content": ["yes"]}}]}, "did not answer as an OpenAI-compatible"),
        (JSONResponse({"error": "image too large"}, 400), "answered 400 Bad Request: .*image too large"),
        (JSONResponse({"error": "out of memory"}, 500), r"answered 500 .*out of memory.* \(2 attempts"),
        (JSONResponse({"error": "rate limit"}, 429), r"answered 429 .*rate limit.* \(2 attempts.*concurrency 8"),
    ],
)
def test_other_failures_are_one_line(said, message):
    with judging(lambda *_: said) as served, pytest.raises(RewardError, match=message) as error:
        judge(served, retries=1).ask(asked(1))
    assert "\n" not in str(error.value)


def test_a_server_that_is_busy_is_asked_again():
    says = iter([JSONResponse({"error": "rate limit"}, 429), "yes"])
    with judging(lambda *_: next(says)) as served:
        assert judge(served).ask(asked(1))[0].value == 1.0


GOOD = {"url": "http://host/v1", "model": "m", "version": "1"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ("gpt", "must be a mapping with url, model and version, found str"),
        ({**GOOD, "modle": 1}, "unknown key 'modle'; did you mean 'model'?"),
        ({**GOOD, "zzz": 1}, "unknown key 'zzz'; it takes: url, model, version"),
        ({"url": "http://host"}, "model is missing; a judge needs url, model and version"),
        ({**GOOD, "version": " "}, "version is missing"),
        ({**GOOD, "version": None}, "version is missing"),
        ({**GOOD, "version": 2024}, "version is 2024 and no text; write it in quotes"),
        ({**GOOD, "version": 0}, "version is 0 and no text; write it in quotes"),
        ({**GOOD, "version": False}, "version is False and no text; write it in quotes"),
        ({**GOOD, "url": "host:80"}, "url is .* must look like"),
        (
            {**GOOD, "url": "http://h/v1/chat/completions/"},
            "url is .*; leave /chat/completions out: 'http://h/v1'",
        ),
        ({**GOOD, "timeout": "60s"}, "place: timeout is '60s'; it must be a number, such as 120"),
        ({**GOOD, "timeout": None}, "timeout is empty; it must be a number, such as 120"),
        ({**GOOD, "timeout": True}, "timeout is True; it must be a number"),
        ({**GOOD, "timeout": 0}, "timeout is 0"),
        ({**GOOD, "patience_s": [1]}, r"patience_s is \[1\]; it must be a number, such as 60"),
        ({**GOOD, "retries": "three"}, "retries is 'three'; it must be a whole number, such as 3"),
        ({**GOOD, "retries": -1}, "retries is -1"),
        ({**GOOD, "price_in": "0.15"}, "price_in is '0.15'; it must be a number"),
        ({**GOOD, "price_out": True}, "price_out is True; it must be a number"),
        ({**GOOD, "token_env": 5}, "token_env is 5 and no text; write it in quotes"),
        ({**GOOD, "cache": 5}, "cache is 5 and no text"),
        ({**GOOD, "cache": " "}, "cache is empty; name a folder, or leave it out"),
        ({**GOOD, "extra": {1: 2, "a": 3}}, "extra has the key 1, which is no text; write it in quotes"),
        ({**GOOD, "extra": {"a": [{True: 1}]}}, "extra has the key True, which is no text"),
        ({**GOOD, "extra": None}, "extra must be a mapping"),
        ({**GOOD, "extra": {"top_logprobs": 5}}, "extra must not hold 'top_logprobs'"),
        ({**GOOD, "retries": 1.5}, "retries is 1.5; it must be a whole number"),
        ({**GOOD, "concurrency": True}, "concurrency is True; it must be a whole number"),
        ({**GOOD, "concurrency": 0}, "concurrency is 0; it must be 1 to 1024"),
        ({**GOOD, "price_in": -1}, "price_in is -1"),
        ({**GOOD, "cache": "here"}, "cache is 'here'; give a whole path"),
        ({**GOOD, "extra": {"temperature": 1}}, "extra must not hold 'temperature'"),
        ({**GOOD, "extra": [1]}, "extra must be a mapping"),
        ({**GOOD, "extra": {"stop": {1}}}, "extra holds what JSON cannot say"),
        ({**GOOD, "token_env": "sk-abc-def"}, "not the token itself"),
        ({**GOOD, "token_env": "sk-0123456789abcdefghijklmn"}, "looks like a secret"),
        ({**GOOD, "api_key": "x"}, "unknown key 'api_key'"),
        ({**GOOD, "proxy": "system"}, "unknown place: proxy 'system'"),
    ],
)
def test_options_are_checked_without_a_network(values, message):
    with pytest.raises(RewardError, match=message) as error:
        judge_options(values, "place")
    assert "0123456789" not in str(error.value)


def test_a_file_names_a_judge_and_its_cache_beside_it(tmp_path):
    file = tmp_path / "judge.yaml"
    file.write_text("url: http://host/v1\nmodel: m\nversion: '1'\ncache: answers\n")
    assert load_judge(file)["cache"] == str(tmp_path / "answers")
    for text, message in (
        ("url: [", "not valid YAML"),
        ("url: http://host/v1\nmodel: m\nmodel: n\nversion: '1'", "not valid YAML: key 'model' appears twice"),
        ("url: http://host/v1\nmodel: m\nversion: '1'\ncache: ''", "cache is empty; name a folder"),
        ("url: http://host/v1\nmodel: m\nversion: no", "version is False and no text; write it in quotes"),
        ("url: http://host/v1", "model is missing"),
        ("- 1", "must be a mapping"),
        ("", "must be a mapping"),
    ):
        file.write_text(text)
        with pytest.raises(RewardError, match=f"judge.yaml.*{message}"):
            load_judge(file)
    with pytest.raises(RewardError, match="nowhere.yaml: no such file"):
        load_judge(Path("nowhere.yaml"))
    with pytest.raises(RewardError, match="is a folder; give a YAML file"):
        load_judge(tmp_path)


def test_a_cache_that_is_no_folder_is_told_before_the_server_is_asked(tmp_path):
    file = tmp_path / "answers"
    file.write_text("")
    for place, message in ((file, "which is a file"), (file / "below", "cannot write"), (Path("/proc/a"), "no disk")):
        with pytest.raises(RewardError, match=f"judge: cache is '{place}'.*{message}") as error:
            Judge(judge_options({**GOOD, "cache": str(place)}, "judge"))
        assert "\n" not in str(error.value)


def test_another_extra_is_another_judge_and_none_is_the_one_of_before():
    plain, thinking = ({}, {"chat_template_kwargs": {"enable_thinking": True, "budget": 1}})
    identity = judge_options({**GOOD, "extra": plain}, "judge").identity
    assert identity == judge_options(GOOD, "judge").identity == {"model": "m", "version": "1"}
    assert judge_name(identity) == "m (1)"
    other = judge_options({**GOOD, "extra": thinking}, "judge").identity
    turned = {"chat_template_kwargs": {"budget": 1, "enable_thinking": True}}
    assert judge_options({**GOOD, "extra": turned}, "judge").identity == other != identity
    assert judge_name(other) == f"m (1, extra {other['extra']})" and len(other["extra"]) == 12


def test_the_judge_of_the_docs_is_one(tmp_path):
    page = (Path(__file__).parents[3] / "docs/benchmarks.md").read_text(encoding="utf-8")
    file = tmp_path / "judge.yaml"
    file.write_text("url:" + page.split("```text\nurl:")[1].split("```")[0])
    found = judge_options(load_judge(file), "judge")
    assert (found.version, found.token_env, found.cache) == ("2025-01", "JUDGE_TOKEN", str(tmp_path / "answers"))
