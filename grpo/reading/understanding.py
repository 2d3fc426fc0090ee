"""The suite `understanding`: does the policy still answer questions about pictures? Multiple choice by likelihood.

The answer that counts is the choice with the highest log-probability, summed over its tokens. Published tasks run
through lmms-eval (`lmms.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from blip3o_grpo.configs import ConfigError
from blip3o_grpo.configs.shipped import RECIPES
from blip3o_grpo.policies import CheckpointError, PromptEncoder, PromptError
from blip3o_grpo.policies.blip3o_next.chat import check_words
from blip3o_grpo.policies.blip3o_next.headers import has_tokenizer
from blip3o_grpo.reading.questions import PictureQuestion, parse_questions
from blip3o_grpo.rewards.benchmarks import decode, digest, read_data
from blip3o_grpo.rewards.images import ImageFileError, open_rgb
from blip3o_grpo.rewards.suites import Measure, ReadingData, ReadingSuite

SIGNS_AND_SHAPES = RECIPES / "understanding" / "signs_and_shapes.jsonl"
"""Questions about pictures of the tiny policy's world (`scripts/make_questions.py`)."""
ACCURACY = "understanding"


def read(path: Path | None) -> ReadingData:
    """The questions of a file, or those that come along.

    Raises:
        ConfigError: whatever is wrong with them, in one line.
    """
    file = SIGNS_AND_SHAPES if path is None else path
    content = read_data(file, "a file of questions about pictures (.jsonl)")
    questions = parse_questions(decode(content, file), file)
    chance = sum(1 / len(question.choices) for question in questions.values()) / len(questions)
    pictures = {question.image for question in questions.values()}
    read_bytes = (picture.read_bytes() for picture in sorted(pictures))
    return ReadingData(file, questions, digest(content, *read_bytes), (f"Guessing scores {chance:.3f}.",))


def check(folder: Path, data: ReadingData) -> None:
    """The checkpoint can see, and every question is text to it.

    Raises:
        CheckpointError: it has no VQ tokenizer of its own and none that it names.
        ConfigError: a question or a choice.
    """
    if not has_tokenizer(folder):
        raise CheckpointError(
            f"{folder}: it cannot read pictures: the checkpoint holds no VQ tokenizer (model.vision_tower), and the "
            "file that its mm_vision_tower names, TA-Tok's ta_tok.pth, is not there"
        )
    encoder = PromptEncoder.from_pretrained(folder, plain=True)
    for question in data.items.values():
        try:
            for words in (question.question, *question.choices):
                check_words(encoder, words)
        except PromptError as error:
            raise ConfigError(f"{question.place}: {error}") from None


def measure(
    folder: Path, against: Path | None, items: Mapping[str, Any], see: Callable[[int], None]
) -> dict[str, dict[str, tuple[float, float]]]:
    """1 for each question whose right choice is the likeliest, 0 for the others."""
    import torch

    from blip3o_grpo.policies.blip3o_next.reader import ImageReader

    reader = ImageReader.from_pretrained(folder, device="cuda" if torch.cuda.is_available() else "cpu")
    found: dict[str, tuple[float, float]] = {}
    for name, question in items.items():
        found[name] = (float(_choose(reader, question) == question.answer), 1.0)
        see(len(found))
    return {ACCURACY: found}


def _choose(reader: Any, question: PictureQuestion) -> str:
    try:
        codes = reader.see([np.asarray(open_rgb(question.image))])
        likelihoods = reader.loglikelihoods(question.question, codes, question.choices)
    except (PromptError, ImageFileError) as error:
        raise ConfigError(f"{question.place}: {error}") from None
    return max(zip(likelihoods, question.choices, strict=True))[1]


SUITE = ReadingSuite(
    set_name="questions",
    measures=(Measure(ACCURACY, "right answers"),),
    read=read,
    check=check,
    measure=measure,
)
