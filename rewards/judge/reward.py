"""`judge`: a vision-language model answers a question about each image: yes or no, how probably yes, or a number."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Literal

from blip3o_grpo.rewards.judge.answers import YES, YES_PROBABILITY, Form, whole_number
from blip3o_grpo.rewards.judge.client import Judge, Question
from blip3o_grpo.rewards.judge.options import judge_options
from blip3o_grpo.rewards.judge.templates import fill, places
from blip3o_grpo.rewards.types import RewardBatch, RewardError

ANSWERS = ("yes_no", "yes_probability", "score")
"""Without a plain `yes`: YAML reads that as true."""


class JudgeReward:
    """Asks a judge one question about each image.

    Args:
        judge: which one and how, see `JudgeOptions`: `{url, model, version, token_env, ...}`.
        question: with `{prompt}` and `{key}` of the prompt's metadata; say in it how to answer.
        answer: `yes_no` (exactly yes or no: 1 or 0), `yes_probability` (P(yes) / (P(yes) + P(no)) of the answer's first
            token, which the server must tell: `top_logprobs`) or `score` (a whole number from `low` to `high`, mapped
            to 0 to 1).
        low: worst score.
        high: best score.

    Raises:
        RewardError: an option out of range, or what `Judge` finds wrong with the server.
    """

    needs = "the keys that its question names"

    def __init__(
        self,
        judge: Mapping[str, Any],
        question: str,
        answer: Literal["yes_no", "yes_probability", "score"] = "yes_no",
        low: int = 0,
        high: int = 10,
    ) -> None:
        self.check_options(judge, question, answer, low, high)
        self._question = question
        forms: dict[str, Form] = {"yes_no": YES, "yes_probability": YES_PROBABILITY, "score": whole_number(low, high)}
        self._form = forms[answer]
        self._low, self._range = (low, high - low) if answer == "score" else (0, 1)
        self._judge = Judge(judge_options(judge, "judge"))

    @staticmethod
    def check_options(
        judge: Mapping[str, Any],
        question: str,
        answer: str = "yes_no",
        low: int = 0,
        high: int = 10,
    ) -> None:
        """Check option values without asking the server; raises RewardError."""
        judge_options(judge, "judge")
        if not isinstance(question, str) or not question.strip():
            raise RewardError("judge: question is empty; give a text with {prompt} in it")
        if not places(question):
            raise RewardError("judge: question names no {prompt} or other key, so all images would be asked the same")
        if answer not in ANSWERS:
            raise RewardError(f"judge: unknown answer {answer!r}; it is one of {', '.join(ANSWERS)}")
        for name, value in (("low", low), ("high", high)):
            if isinstance(value, bool) or not isinstance(value, int):
                raise RewardError(f"judge: {name} is {value!r}; it must be a whole number, without quotes")
        if answer == "score" and not low < high:
            raise RewardError(f"judge: scores go from low={low} to high={high}; low must be below high")

    @staticmethod
    def check_prompt(prompt: str, metadata: Mapping[str, Any], **options: Any) -> None:
        """Refuse a prompt without a key that the question names; raises RewardError."""
        fill(options["question"], prompt, metadata)

    def __call__(self, batch: RewardBatch) -> list[float | None]:
        """Scores in [0, 1]."""
        return [value for value, _ in self.explained_scores(batch)]

    def explained_scores(self, batch: RewardBatch) -> list[tuple[float | None, dict[str, Any] | None]]:
        """The scores of a call, each with question, answer, judge and what the answer took."""
        columns = zip(batch.images, batch.prompts, batch.metadata, strict=True)
        questions = [
            Question(fill(self._question, prompt, metadata), image, self._form) for image, prompt, metadata in columns
        ]
        return [
            (
                (answer.value - self._low) / self._range,
                {
                    "question": question.text,
                    "answer": answer.text,
                    "judge": self._judge.options.identity,
                    "usage": asdict(answer.usage),
                },
            )
            for question, answer in zip(questions, self._judge.ask(questions), strict=True)
        ]
