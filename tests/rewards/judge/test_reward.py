"""The reward `judge`: question templates, scores in [0, 1], and what it refuses before a server is asked."""

from pathlib import Path

import numpy as np
import pytest

from blip3o_grpo.configs import DEFAULT_RECIPE, load_run_config
from blip3o_grpo.rewards import RewardBatch, RewardError, check_reward, find_reward, load_reward
from blip3o_grpo.rewards.http import transport
from blip3o_grpo.rewards.judge.templates import fill, places
from tests.rewards.judge.server import block, judging, likeliest

QUESTION = 'Does it show "{prompt}" in {colour}? Answer yes or no.'


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(transport, "BACKOFF_S", 0.001)


def batch_of(*levels):
    images = [np.full((8, 8, 3), level, np.uint8) for level in levels]
    return RewardBatch(images, ["a sign"] * len(levels), [{"colour": "red"}] * len(levels))


def test_yes_and_no_are_1_and_0_and_say_why():
    with judging(lambda question, picture: "yes" if picture.mean() > 100 else "no") as served:
        reward = load_reward("judge", {"judge": block(served), "question": QUESTION})
        (one, why), (zero, _) = reward.explained_scores(batch_of(200, 10))
        check_reward(reward.instance, batch_of(200, 10, 150))
    assert (one, zero) == (1.0, 0.0)
    assert why["question"] == 'Does it show "a sign" in red? Answer yes or no.' and why["answer"] == "yes"
    assert why["judge"] == {"model": "tiny-judge", "version": "1"} and why["usage"]["calls"] == 1


def test_scores_are_mapped_to_shares_of_their_range():
    with judging(lambda question, picture: str(int(picture.mean()))) as served:
        options = {"judge": block(served), "question": QUESTION, "answer": "score", "low": 1, "high": 5}
        assert load_reward("judge", options).score(batch_of(1, 2, 5)) == [0.0, 0.25, 1.0]
        with pytest.raises(RewardError, match="answered '6' instead of exactly one whole number from 1 to 5"):
            load_reward("judge", options).score(batch_of(3, 6))


def sure(question, picture):
    """A bright picture is a yes of 0.6 + 0.2, a dark one of 0.06 + 0.02, both beside a no of 0.1."""
    scale = 1.0 if picture.mean() > 100 else 0.1
    return likeliest(("Yes", 0.6 * scale), ("No", 0.1), (" yes", 0.2 * scale), ("It", 0.05))


def test_the_probability_of_yes_is_read_from_the_first_token_and_kept(tmp_path):
    with judging(sure) as served:
        options = {"judge": block(served, cache=str(tmp_path)), "question": QUESTION, "answer": "yes_probability"}
        reward = load_reward("judge", options)
        (bright, why), (dark, _) = reward.explained_scores(batch_of(200, 10))
        assert (bright, dark) == pytest.approx((0.8 / 0.9, 0.08 / 0.18))
        assert why["answer"].startswith("P(yes)=0.8") and why["usage"]["calls"] == 1
        asked = [(body["logprobs"], body["top_logprobs"], body["max_tokens"]) for body in served.requests]
        assert asked == [(True, 20, 1)] * 2
        assert reward.score(batch_of(200, 10)) == [bright, dark] and len(served.requests) == 2
        # A plain yes or no about the same image is another answer.
        with pytest.raises(RewardError, match="'Yes' .cut off. instead of exactly yes or no"):
            load_reward("judge", {**options, "answer": "yes_no"}).score(batch_of(200))
        check_reward(reward.instance, batch_of(200, 10, 150))


@pytest.mark.parametrize(
    ("said", "message", "calls"),
    [
        ("yes", r"judge tiny-judge at http.*/v1 tells no log-probabilities of its first token \(top_logprobs\)", 1),
        (likeliest(("It", 0.5), ("Yes!", 0.1)), r"answered .first one of 'It', 'Yes!'. instead of exactly yes or", 4),
        ({"choices": [{"message": {"content": ""}, "logprobs": {"content": []}}]}, "tells no log-probabilities", 1),
        ({"choices": [{"message": {"content": ""}, "logprobs": None}]}, "tells no log-probabilities", 1),
    ],
)
def test_a_judge_whose_first_token_says_neither_word_is_named_and_scores_nothing(said, message, calls):
    with judging(lambda *_: said) as served:
        reward = load_reward("judge", {"judge": block(served), "question": QUESTION, "answer": "yes_probability"})
        with pytest.raises(RewardError, match=message) as error:
            reward.score(batch_of(200))
    assert len(served.requests) == calls and "\n" not in str(error.value)


@pytest.mark.parametrize("logprob", ["-0.1", True, None, 10**400])
def test_a_probability_that_is_no_number_is_no_judge_s(logprob):
    body = likeliest(("yes", 0.5))
    body["choices"][0]["logprobs"]["content"][0]["top_logprobs"][0]["logprob"] = logprob
    with judging(lambda *_: body) as served:
        reward = load_reward("judge", {"judge": block(served), "question": QUESTION, "answer": "yes_probability"})
        with pytest.raises(RewardError, match="did not answer as an OpenAI-compatible server does"):
            reward.score(batch_of(200))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"question": " "}, "question is empty"),
        ({"question": "Is it pretty?"}, r"names no {prompt}"),
        ({"answer": "maybe"}, "unknown answer 'maybe'; it is one of yes_no, yes_probability, score"),
        ({"low": "0", "high": "10", "answer": "score"}, "low is '0'; it must be a whole number, without quotes"),
        ({"high": 9.5, "answer": "score"}, "high is 9.5; it must be a whole number"),
        ({"low": False, "answer": "score"}, "low is False; it must be a whole number"),
        ({"answer": "score", "low": 3, "high": 3}, "low must be below high"),
        ({"judge": {"url": "http://host/v1"}}, "judge: model is missing"),
        ({"qestion": "x"}, "did you mean 'question'"),
    ],
)
def test_options_are_refused_before_a_server_is_asked(change, message):
    options = {"judge": {"url": "http://host/v1", "model": "m", "version": "1"}, "question": QUESTION, **change}
    with pytest.raises(RewardError, match=message):
        find_reward("judge").check_options(options)


def test_a_prompt_without_a_key_of_the_question_is_refused():
    spec, options = find_reward("judge"), {"question": QUESTION}
    spec.check_prompt("a sign", {"colour": "red"}, options)
    with pytest.raises(RewardError, match="asks for {colour}, and the prompt's line has no key 'colour'"):
        spec.check_prompt("a sign", {}, options)
    with pytest.raises(RewardError, match="asks for {colour}, which is list and no text or number"):
        spec.check_prompt("a sign", {"colour": ["red"]}, options)


def test_templates():
    assert places("{a} {b} {a} {{c}} {d e}") == ["a", "b"]
    assert fill("{prompt}: {a}, {{a}} {}", "p", {"a": 2.5}) == "p: 2.5, {a} {}"


def test_the_page_s_recipe_is_taken_as_yaml_reads_it(tmp_path):
    """YAML reads a plain `yes` as true: no option may want one."""
    page = (Path(__file__).parents[3] / "docs/benchmarks.md").read_text(encoding="utf-8")
    block = next(part.split("```")[0] for part in page.split("```yaml\n")[1:] if "name: judge" in part)
    prompts = DEFAULT_RECIPE.parent / "prompts/tiny_ocr_train.jsonl"
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"run_dir: run\nprompts: {{train: {prompts}, heldout: {prompts}}}\n{block}", encoding="utf-8")
    (reward,) = load_run_config(recipe).rewards
    assert reward.options["answer"] == "yes_no"
    find_reward("judge").check_options(reward.options)
