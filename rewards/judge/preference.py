"""`preference`: a judge compares every two images of a prompt; the share of its comparisons that an image wins.

Pairwise preference as a reward within a GRPO group: Wang et al. 2025, "Pref-GRPO", https://arxiv.org/abs/2508.20751.
Unlike there, each pair is shown in both orders: judges favour a place, and a score must not hang on a sibling's number.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import permutations
from typing import Any, ClassVar

from blip3o_grpo.rewards.hooks import Kind
from blip3o_grpo.rewards.judge.answers import whole_number
from blip3o_grpo.rewards.judge.benchmark_reward import JudgedImages
from blip3o_grpo.rewards.judge.client import Answer, Question
from blip3o_grpo.rewards.judge.options import judge_options
from blip3o_grpo.rewards.judge.templates import fill
from blip3o_grpo.rewards.types import RewardBatch, RewardError

ASKED = (
    'Both images were made for this prompt: "{prompt}". Which one would most people choose, for showing what the '
    "prompt says and for how good it looks? Answer with one digit only: 1 for the first image, 2 for the second."
)
FORM = whole_number(1, 2)


class PreferenceReward:
    """Win rate of an image among its siblings, by a judge that is shown two images at a time.

    Of n images n (n - 1) comparisons are asked: every pair in both orders. An image that is chosen in both wins 1, one
    that is chosen in one of them 1/2; its score is the mean over its n - 1 siblings. The mean over a group is always
    1/2, so it says which sibling is better and never how good they are.

    Args:
        judge: which one and how, see `JudgeOptions`; it must take two images in one question.
        question: with `{prompt}` and `{key}` of the prompt's metadata; the answer is 1 for the first image, 2 for the
            second.

    Raises:
        RewardError: an option out of range, or what `Judge` finds wrong with the server.
    """

    kind: ClassVar[Kind] = "group"
    needs = "the keys that its question names"

    def __init__(self, judge: Mapping[str, Any], question: str = ASKED) -> None:
        self.check_options(judge, question)
        self._question = question
        self._images = JudgedImages(judge)

    @staticmethod
    def check_options(judge: Mapping[str, Any], question: str = ASKED) -> None:
        """Check option values without asking the server; raises RewardError."""
        judge_options(judge, "judge")
        if not isinstance(question, str) or not question.strip():
            raise RewardError("preference: question is empty; give a text that asks for 1 (first image) or 2 (second)")

    @staticmethod
    def check_prompt(prompt: str, metadata: Mapping[str, Any], **options: Any) -> None:
        """Refuse a prompt without a key that the question names; raises RewardError."""
        fill(options.get("question", ASKED), prompt, metadata)

    def __call__(self, batch: RewardBatch) -> list[float | None]:
        """Win rates in [0, 1] of the siblings of one prompt."""
        return [value for value, _ in self.explained_scores(batch)]

    def explained_scores(self, batch: RewardBatch) -> list[tuple[float | None, dict[str, Any] | None]]:
        """The scores of a call, each with the question and, where the image was shown first, each sibling's answer.

        Raises:
            RewardError: an image without a sibling, or a comparison that the judge did not answer: never half a group.
        """
        count = len(batch)
        if not count:
            return []
        if count < 2:
            raise RewardError(
                f"preference compares the images of a prompt, and of {batch.prompts[0]!r:.100} there is one only; draw "
                "at least two (evaluation.images_per_prompt, or --images)"
            )
        text = fill(self._question, batch.prompts[0], batch.metadata[0])
        pairs = list(permutations(range(count), 2))
        asked = [Question(text, batch.images[first], FORM, batch.images[second]) for first, second in pairs]
        answers = dict(zip(pairs, self._images.ask([asked])[0], strict=True))
        return [(_win_rate(index, count, answers), self._why(index, text, answers)) for index in range(count)]

    def _why(self, index: int, text: str, answers: Mapping[tuple[int, int], Answer]) -> dict[str, Any]:
        """An image's explanation; each answer, and what it took, is counted for the image that was shown first."""
        first = {second: answer for (shown, second), answer in answers.items() if shown == index}
        return self._images.explain(list(first.values()), question=text, compared_with=list(first))


def _win_rate(index: int, count: int, answers: Mapping[tuple[int, int], Answer]) -> float:
    """Share of an image's comparisons in which it was chosen.

    Args:
        index: of the image.
        count: of images.
        answers: by the first and the second image's index; 1 where the first was chosen, 2 where the second.
    """
    siblings = [other for other in range(count) if other != index]
    wins = sum((answers[index, other].value == 1) + (answers[other, index].value == 2) for other in siblings)
    return wins / (2 * len(siblings))
