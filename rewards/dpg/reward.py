"""`dpg`: a judge answers a prompt's yes/no questions about each image; the official image score."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from blip3o_grpo.rewards.dpg.questions import KEY, questions_of
from blip3o_grpo.rewards.dpg.scoring import image_score
from blip3o_grpo.rewards.judge.answers import YES
from blip3o_grpo.rewards.judge.benchmark_reward import JudgedImages
from blip3o_grpo.rewards.judge.client import Question
from blip3o_grpo.rewards.judge.options import judge_options
from blip3o_grpo.rewards.judge.templates import fill
from blip3o_grpo.rewards.types import RewardBatch

ASKED = "{question} Answer with exactly yes or no."
"""The official judge, a model for such questions alone, gets the bare question."""


class DPGReward:
    """Scores images by the questions under `dpg` in their prompt's metadata.

    Args:
        judge: which one and how, see `JudgeOptions`.

    Raises:
        RewardError: an option out of range, or what `Judge` finds wrong with the server.
    """

    needs = "the key `dpg`: questions with id, parents, category and question"

    def __init__(self, judge: Mapping[str, Any]) -> None:
        self.check_options(judge)
        self._images = JudgedImages(judge)

    @staticmethod
    def check_options(judge: Mapping[str, Any]) -> None:
        """Check option values without asking the server; raises RewardError."""
        judge_options(judge, "judge")

    @staticmethod
    def applicable(prompt: str, metadata: Mapping[str, Any]) -> bool:
        """Whether there are questions."""
        return KEY in metadata

    @staticmethod
    def check_prompt(prompt: str, metadata: Mapping[str, Any], **options: Any) -> None:
        """Refuse questions that are damaged or depend on one that is not there; raises RewardError."""
        if KEY in metadata:
            questions_of(metadata)

    def __call__(self, batch: RewardBatch) -> list[float | None]:
        """Image scores in [0, 1]; None for prompts without questions."""
        return [value for value, _ in self.explained_scores(batch)]

    def explained_scores(self, batch: RewardBatch) -> list[tuple[float | None, dict[str, Any] | None]]:
        """The scores of a call, each with `answers` (question id to 1 or 0, before dependencies)."""
        wanted = [questions_of(metadata) if KEY in metadata else () for metadata in batch.metadata]
        asked = [
            [Question(fill(ASKED, "", {"question": question.text}), image, YES) for question in questions]
            for image, questions in zip(batch.images, wanted, strict=True)
        ]
        results: list[tuple[float | None, dict[str, Any] | None]] = []
        for questions, answers in zip(wanted, self._images.ask(asked), strict=True):
            if not questions:
                results.append((None, None))
                continue
            values = {question.id: answer.value for question, answer in zip(questions, answers, strict=True)}
            explained = self._images.explain(answers, answers={str(key): value for key, value in values.items()})
            results.append((image_score(values, questions), explained))
        return results
