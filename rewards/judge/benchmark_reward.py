"""What rewards of benchmarks with a judge share: several questions about an image, and what is said of the answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from blip3o_grpo.rewards.judge.client import Answer, Judge, Question
from blip3o_grpo.rewards.judge.options import judge_options
from blip3o_grpo.rewards.judge.usage import total


class JudgedImages:
    """A judge that is asked about images, any number of questions each.

    Args:
        judge: options of it.

    Raises:
        RewardError: as `judge_options` and `Judge`.
    """

    def __init__(self, judge: Mapping[str, Any]) -> None:
        self._judge = Judge(judge_options(judge, "judge"))

    def ask(self, questions: Sequence[Sequence[Question]]) -> list[list[Answer]]:
        """Answers to every image's questions; all of them are asked at once."""
        answers = iter(self._judge.ask([question for image in questions for question in image]))
        return [[next(answers) for _ in image] for image in questions]

    def explain(self, answers: Sequence[Answer], /, **more: Any) -> dict[str, Any]:
        """An image's explanation: who answered what, and what it took."""
        return {
            **more,
            "said": [answer.text for answer in answers],
            "judge": self._judge.options.identity,
            "usage": asdict(total(answer.usage for answer in answers)),
        }
