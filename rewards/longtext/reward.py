"""`longtext`: a judge reads all text in the image; the share of wanted words (Chinese: characters) found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from blip3o_grpo.rewards.judge.answers import Form, read_transcript
from blip3o_grpo.rewards.judge.benchmark_reward import JudgedImages
from blip3o_grpo.rewards.judge.client import Question
from blip3o_grpo.rewards.judge.options import judge_options
from blip3o_grpo.rewards.longtext.records import texts_of
from blip3o_grpo.rewards.longtext.scoring import LANGUAGES, found_and_wanted
from blip3o_grpo.rewards.types import RewardBatch, RewardError

NOTHING = "no text"
ASKED = f"Write down all text that you can read in this image, and nothing else. If there is none, write: {NOTHING}"
FORM = Form(f"the text that is in the image, or `{NOTHING}`", read_transcript, 2048)


class LongTextReward:
    """Scores images against the list `text` in their prompt's metadata.

    Args:
        judge: which one and how, see `JudgeOptions`.
        language: `en` counts words, `zh` characters.

    Raises:
        RewardError: an option out of range, or what `Judge` finds wrong with the server.
    """

    needs = "the key `text`: a list of texts to be written"

    def __init__(self, judge: Mapping[str, Any], language: Literal["en", "zh"] = "en") -> None:
        self.check_options(judge, language)
        self._language = language
        self._images = JudgedImages(judge)

    @staticmethod
    def check_options(judge: Mapping[str, Any], language: str = "en") -> None:
        """Check option values without asking the server; raises RewardError."""
        judge_options(judge, "judge")
        if language not in LANGUAGES:
            raise RewardError(f"longtext: unknown language {language!r}; it is one of {', '.join(LANGUAGES)}")

    @staticmethod
    def applicable(prompt: str, metadata: Mapping[str, Any]) -> bool:
        """Whether there are texts to be written."""
        return isinstance(metadata.get("text"), list)

    @classmethod
    def check_prompt(cls, prompt: str, metadata: Mapping[str, Any], **options: Any) -> None:
        """Refuse texts in which nothing counts; raises RewardError."""
        if cls.applicable(prompt, metadata):
            texts_of(metadata, options.get("language", "en"))

    def __call__(self, batch: RewardBatch) -> list[float | None]:
        """Shares in [0, 1]; None for prompts without texts."""
        return [value for value, _ in self.explained_scores(batch)]

    def explained_scores(self, batch: RewardBatch) -> list[tuple[float | None, dict[str, Any] | None]]:
        """The scores of a call, each with `reading`, `found` and `wanted`."""
        wanted = [
            texts_of(metadata, self._language) if self.applicable(prompt, metadata) else None
            for prompt, metadata in zip(batch.prompts, batch.metadata, strict=True)
        ]
        asked = [
            [] if texts is None else [Question(ASKED, image, FORM)]
            for image, texts in zip(batch.images, wanted, strict=True)
        ]
        results: list[tuple[float | None, dict[str, Any] | None]] = []
        for texts, answers in zip(wanted, self._images.ask(asked), strict=True):
            if texts is None:
                results.append((None, None))
                continue
            reading = "" if answers[0].value.lower() == NOTHING else answers[0].value
            found, count = found_and_wanted(texts, reading, self._language)
            results.append((found / count, self._images.explain(answers, reading=reading, found=found, wanted=count)))
        return results
