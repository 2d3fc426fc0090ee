"""`wise` and `wise_verified`: a judge says how well an image answers a prompt that needs knowledge of the world."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from blip3o_grpo.rewards.judge.answers import Form, UnparseableError, labelled_numbers, whole_number
from blip3o_grpo.rewards.judge.benchmark_reward import JudgedImages
from blip3o_grpo.rewards.judge.client import Answer, Question
from blip3o_grpo.rewards.judge.options import judge_options
from blip3o_grpo.rewards.judge.templates import fill, places
from blip3o_grpo.rewards.types import RewardBatch, RewardError
from blip3o_grpo.rewards.wise.questions import LEGACY, VERIFIED
from blip3o_grpo.rewards.wise.records import KEY, explanation_of
from blip3o_grpo.rewards.wise.scoring import HIGHEST, LABELS, wiscore


def _binary() -> Form[int]:
    """0 or 1, alone or as `Score: 0`, the form that the official instructions ask for."""
    alone, labelled = whole_number(0, 1), labelled_numbers(("Score",), 0, 1)

    def read(text: str) -> int:
        try:
            return alone.read(text)
        except UnparseableError:
            return labelled.read(text)["Score"]

    return Form(f"{alone.words}, or `Score: NUMBER`", read, alone.max_tokens)


class WiseReward:
    """WiScore of images: consistency, realism and aesthetic quality, each 0, 1 or 2.

    Args:
        judge: which one and how, see `JudgeOptions`.
        instructions: what it is asked, with `{prompt}` and `{explanation}`; None: the project's own words.

    Raises:
        RewardError: an option out of range, or what `Judge` finds wrong with the server.
    """

    needs = "the key `wise`: an object with `explanation`"
    _own_words: ClassVar[str] = LEGACY
    _form: ClassVar[Form] = labelled_numbers(LABELS, 0, HIGHEST)

    def __init__(self, judge: Mapping[str, Any], instructions: str | None = None) -> None:
        self.check_options(judge, instructions)
        self._instructions = instructions or self._own_words
        self._images = JudgedImages(judge)

    @staticmethod
    def check_options(judge: Mapping[str, Any], instructions: str | None = None) -> None:
        """Check option values without asking the server; raises RewardError."""
        judge_options(judge, "judge")
        if instructions is not None and not {"prompt", "explanation"} <= set(places(instructions)):
            raise RewardError("wise: instructions must name {prompt} and {explanation}, which a judge needs")

    @staticmethod
    def applicable(prompt: str, metadata: Mapping[str, Any]) -> bool:
        """Whether there is a WISE record."""
        return KEY in metadata

    @staticmethod
    def check_prompt(prompt: str, metadata: Mapping[str, Any], **options: Any) -> None:
        """Refuse a record without an explanation; raises RewardError."""
        if KEY in metadata:
            explanation_of(metadata)

    def __call__(self, batch: RewardBatch) -> list[float | None]:
        """Scores in [0, 1]; None for prompts without a record."""
        return [value for value, _ in self.explained_scores(batch)]

    def explained_scores(self, batch: RewardBatch) -> list[tuple[float | None, dict[str, Any] | None]]:
        """The scores of a call, each with the judge's `numbers`."""
        columns = zip(batch.images, batch.prompts, batch.metadata, strict=True)
        asked = [
            [Question(self._text(prompt, metadata), image, self._form)] if KEY in metadata else []
            for image, prompt, metadata in columns
        ]
        return [self._judged(answers) if answers else (None, None) for answers in self._images.ask(asked)]

    def _text(self, prompt: str, metadata: Mapping[str, Any]) -> str:
        return fill(self._instructions, prompt, {"explanation": explanation_of(metadata)})

    def _judged(self, answers: Sequence[Answer]) -> tuple[float, dict[str, Any]]:
        numbers = answers[0].value
        return wiscore(numbers), self._images.explain(answers, numbers=numbers)


class WiseVerifiedReward(WiseReward):
    """WISE_Verified: 1 where an image shows what the prompt means, else 0."""

    _own_words = VERIFIED
    _form = _binary()

    def _judged(self, answers: Sequence[Answer]) -> tuple[float, dict[str, Any]]:
        number = answers[0].value
        return float(number), self._images.explain(answers, numbers={"score": number})
