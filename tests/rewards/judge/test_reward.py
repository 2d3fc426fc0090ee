"""The reward `judge`: question templates, scores in [0, 1], and what it refuses before a server is asked."""

from pathlib import Path

import numpy as np
import pytest

from blip3o_grpo.configs import DEFAULT_RECIPE, load_run_config
from blip3o_grpo.rewards import RewardBatch, RewardError, check_reward, find_reward, load_reward
from blip3o_grpo.rewards.http import transport
from blip3o_grpo.rewards.judge.templates import fill, places
from tests.rewards.judge.server import block, judging

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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"question": " "}, "question is empty"),
        ({"question": "Is it pretty?"}, r"names no {prompt}"),
        ({"answer": "maybe"}, "unknown answer 'maybe'; it is one of yes_no, score"),
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
