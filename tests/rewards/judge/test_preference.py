"""The reward `preference` over real HTTP, against a server that follows a rule; there is no model behind it."""

import numpy as np
import pytest

from blip3o_grpo.rewards import RewardBatch, RewardError, adapt, check_reward
from blip3o_grpo.rewards.http import transport
from blip3o_grpo.rewards.judge.preference import PreferenceReward
from blip3o_grpo.rewards.spec import describe
from tests.rewards.judge.server import block, judging

GOOD = {"url": "http://host/v1", "model": "m", "version": "1"}


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(transport, "BACKOFF_S", 0.001)


def group_of(*levels):
    images = [np.full((8, 8, 3), level, np.uint8) for level in levels]
    return RewardBatch(images, ["a sign"] * len(levels), [{"colour": "red"}] * len(levels))


def brighter(question, first, second):
    """Chooses the brighter image; of equal ones always the first that is shown, as a judge with a favoured place."""
    return "1" if first.mean() >= second.mean() else "2"


def test_scores_are_win_rates_over_the_siblings():
    """By hand: 200 beats all; 100 beats 50 twice and ties with the other 100; 50 loses to all."""
    with judging(brighter) as served:
        scores = adapt(PreferenceReward(block(served))).score(group_of(100, 200, 50, 100))
    assert scores == pytest.approx([1.5 / 3, 1, 0, 1.5 / 3])
    assert sum(scores) == pytest.approx(4 / 2)
    assert len(served.requests) == 4 * 3


def test_a_judge_that_looks_at_places_only_prefers_nobody():
    """Every pair is shown in both orders."""
    with judging(lambda *_: "1") as served:
        assert PreferenceReward(block(served))(group_of(1, 2, 3)) == [0.5] * 3


def test_it_keeps_the_promises_of_a_group_reward():
    """Order of siblings, repetition, images left as they are."""
    with judging(brighter) as served:
        found = check_reward(PreferenceReward(block(served)), group_of(10, 250, 90))
    assert found.kind == "group" and found.scores == [0, 1, 0.5]


def test_the_question_names_the_prompt_and_both_images_are_shown_in_their_order():
    with judging(lambda *_: "2") as served:
        reward = PreferenceReward(block(served), question="Which is a better {colour} {prompt}: 1 or 2?")
        (_, why), _ = reward.explained_scores(group_of(5, 9))
    assert served.questions == ["Which is a better red a sign: 1 or 2?"] * 2
    assert [len(body["messages"][0]["content"]) for body in served.requests] == [3, 3]
    assert why["question"] == served.questions[0] and why["compared_with"] == [1] and why["said"] == ["2"]
    assert why["judge"] == {"model": "tiny-judge", "version": "1"} and why["usage"]["calls"] == 1
    with judging(brighter) as served:
        PreferenceReward(block(served))(group_of(5, 9))
    assert all('"a sign"' in question for question in served.questions)


def test_the_order_of_two_images_is_part_of_the_answers_key(tmp_path):
    """Else the answer to one order would serve the other, and every pair would be a tie."""
    with judging(brighter) as served:
        for _ in range(2):
            assert PreferenceReward(block(served, cache=str(tmp_path)))(group_of(7, 3)) == [1, 0]
    assert len(served.requests) == 2


@pytest.mark.parametrize("said", ["A", "the first", "0", "3", "both", ""])
def test_a_comparison_without_an_answer_stops_and_scores_nothing(said):
    with (
        judging(lambda *_: said) as served,
        pytest.raises(RewardError, match="instead of exactly one whole number from 1 to 2"),
    ):
        PreferenceReward(block(served, retries=1))(group_of(1, 2))


def test_one_image_has_nobody_to_be_compared_with():
    with judging(brighter) as served, pytest.raises(RewardError, match="of 'a sign' there is one only; draw at least"):
        PreferenceReward(block(served))(group_of(1))
    assert not served.requests


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"question": " "}, "question is empty"),
        ({"question": 3}, "question is empty"),
        ({"judge": {"url": "http://host/v1"}}, "judge: model is missing"),
        ({"qestion": "x"}, "did you mean 'question'"),
    ],
)
def test_options_are_refused_before_a_server_is_asked(change, message):
    with pytest.raises(RewardError, match=message):
        describe(PreferenceReward, "preference").check_options({"judge": GOOD, **change})


def test_a_prompt_without_a_key_of_the_question_is_refused():
    spec = describe(PreferenceReward, "preference")
    spec.check_prompt("a sign", {}, {"judge": GOOD})
    with pytest.raises(RewardError, match="has no key 'style'"):
        spec.check_prompt("a sign", {}, {"judge": GOOD, "question": "Which is more {style}?"})
