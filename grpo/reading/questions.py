"""Local questions about pictures: a JSONL file, a question with its choices a line, and the pictures beside it.

    {"id": "q1", "image": "pictures/q1.png", "question": "What colour is the sign?", "choices": ["red", "blue"],
     "answer": "red"}

`image` is relative to the file, `answer` is one of `choices`.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blip3o_grpo.configs import ConfigError
from blip3o_grpo.configs.strict_json import parse_json
from blip3o_grpo.rewards.images import ImageFileError, check_header

KEYS = ("id", "image", "question", "choices", "answer")


@dataclass(frozen=True)
class PictureQuestion:
    """A question with one right answer among several."""

    image: Path
    question: str
    choices: tuple[str, ...]
    """Two or more, all different."""
    answer: str
    """One of them."""
    place: str
    """`FILE:LINE`, for messages."""


def parse_questions(text: str, file: Path) -> dict[str, PictureQuestion]:
    """Questions by id, in the file's order; blank lines are skipped.

    Args:
        text: the file's.
        file: its path, from which those of pictures start.

    Raises:
        ConfigError: naming file and line.
    """
    questions: dict[str, PictureQuestion] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        place = f"{file}:{number}"
        try:
            record = parse_json(line)
        except ValueError as error:
            raise ConfigError(f"{place}: {error}") from error
        name, question = _question(record, file.parent, place)
        if name in questions:
            raise ConfigError(f"{place}: the id {name!r} was used before, in {questions[name].place}")
        questions[name] = question
    if not questions:
        raise ConfigError(f"{file}: the file holds no questions")
    return questions


def _question(record: Any, folder: Path, place: str) -> tuple[str, PictureQuestion]:
    if not isinstance(record, dict):
        raise ConfigError(f"{place}: expected an object with {', '.join(KEYS)}, found {type(record).__name__}")
    for key in record:
        if key not in KEYS:
            near = difflib.get_close_matches(key, KEYS, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(KEYS)}"
            raise ConfigError(f"{place}: unknown key {key!r}; {hint}")
    for key in ("id", "image", "question", "answer"):
        if not isinstance(record.get(key), str) or not record[key].strip():
            raise ConfigError(f"{place}: the key {key!r} is missing or holds no text")
    choices = record.get("choices")
    if not isinstance(choices, list) or len(choices) < 2 or not all(isinstance(c, str) and c.strip() for c in choices):
        raise ConfigError(f"{place}: `choices` must be a list of two texts or more")
    if len(set(choices)) < len(choices):
        raise ConfigError(f"{place}: the choice {max(choices, key=choices.count)!r} is there twice")
    answer = record["answer"]
    if answer not in choices:
        near = difflib.get_close_matches(answer, choices, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"they are: {', '.join(map(repr, choices))}"
        raise ConfigError(f"{place}: the answer {answer!r} is none of the choices; {hint}")
    image = folder / record["image"]
    try:
        check_header(image)
    except ImageFileError as error:
        raise ConfigError(f"{place}: {error}") from error
    return record["id"], PictureQuestion(image, record["question"], tuple(choices), answer, place)
