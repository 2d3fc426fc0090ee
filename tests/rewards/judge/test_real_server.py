"""The judge client against vLLM's own server with a real vision-language architecture behind it, weights random."""

import numpy as np
import pytest

from blip3o_grpo.rewards import RewardBatch, RewardError
from blip3o_grpo.rewards.judge.answers import YES, whole_number
from blip3o_grpo.rewards.judge.client import Judge, Question
from blip3o_grpo.rewards.judge.options import JudgeOptions
from blip3o_grpo.rewards.judge.preference import PreferenceReward
from tests.rewards.judge.tiny_vlm import NAME, make, served

pytestmark = pytest.mark.slow

IMAGES = [np.full((40, 60, 3), level, np.uint8) for level in (0, 90, 180, 255)]


def one_of(*choices):
    """What random weights need to answer in a form at all: vLLM's choice of words."""
    return {"structured_outputs": {"choice": list(choices)}}


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vlm")
    with served(make(folder / "model"), folder / "log") as url:
        yield url


def test_a_real_model_answers_about_each_image_and_is_asked_once(url, tmp_path):
    judge = Judge(JudgeOptions(url, NAME, "random", cache=str(tmp_path), extra=one_of("yes", "no")))
    questions = [Question("Is it bright?", image, YES) for image in IMAGES]
    answers = judge.ask(questions)
    assert {answer.value for answer in answers} <= {0.0, 1.0}
    # 16 patches an image, and a token a byte: the pictures arrived.
    assert all(answer.usage.tokens_in >= 16 + len("Is it bright?") for answer in answers)
    again = judge.ask(questions)
    assert [answer.value for answer in again] == [answer.value for answer in answers]
    assert all(answer.usage.cached == 1 and answer.usage.calls == 0 for answer in again)


def test_what_it_says_freely_is_no_answer(url):
    judge = Judge(JudgeOptions(url, NAME, "random", retries=1))
    with pytest.raises(RewardError, match=r"judge tiny-vlm at .* answered .* instead of exactly yes or no \(2 calls\)"):
        judge.ask([Question("Is it bright?", IMAGES[0], YES)])


def test_two_images_are_compared_in_both_orders(url):
    reward = PreferenceReward({"url": url, "model": NAME, "version": "random", "extra": one_of("1", "2")})
    scores = reward(RewardBatch(IMAGES, ["a grey square"] * 4, [{}] * 4))
    assert sum(scores) == pytest.approx(2) and all(0 <= score <= 1 for score in scores)


def test_numbers_and_a_model_that_is_not_there(url):
    judge = Judge(JudgeOptions(url, NAME, "random", extra=one_of("0", "7", "10")))
    (answer,) = judge.ask([Question("From 0 to 10?", IMAGES[0], whole_number(0, 10))])
    assert answer.value in (0, 7, 10)
    with pytest.raises(RewardError, match="has no model 'tiny-vlmm'; did you mean 'tiny-vlm'"):
        Judge(JudgeOptions(url, "tiny-vlmm", "random"))
