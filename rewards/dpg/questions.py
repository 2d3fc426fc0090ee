"""The official question file `dpg_bench.csv`: items with their questions, checked.

    item_id, text, keywords, proposition_id, dependency, category_broad, category_detailed, tuple,
    question_natural_language

Rows of an item follow each other. `dependency` lists proposition ids with commas; 0 is none.
"""

from __future__ import annotations

import csv
import difflib
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from blip3o_grpo.configs import ConfigError
from blip3o_grpo.rewards.types import RewardError

COLUMNS = (
    "item_id",
    "text",
    "keywords",
    "proposition_id",
    "dependency",
    "category_broad",
    "category_detailed",
    "tuple",
    "question_natural_language",
)
_NUMBER = re.compile(r"[0-9]{1,9}")
_ID = re.compile(r"[\w-]+")
KEY = "dpg"
"""Of a prompt's metadata: its questions."""


@dataclass(frozen=True)
class DPGQuestion:
    """One question about a prompt's images."""

    id: int
    parents: tuple[int, ...]
    """Questions that must be answered with yes for this one to count."""
    category: str
    """`global`, `entity`, `attribute`, `relation` or `other`."""
    text: str


@dataclass(frozen=True)
class DPGItem:
    """One prompt with its questions, in the order of the file."""

    id: str
    text: str
    questions: tuple[DPGQuestion, ...]


def read_questions(text: str, file: str, *, skip_first_row: bool = False) -> tuple[list[DPGItem], list[str]]:
    """Items of a question file, and ids of those that were left out.

    Args:
        text: of the file.
        file: its name, for messages.
        skip_first_row: as the official script does: its loop passes over the first data row, and an item with a
            question whose parent was in it fails and is left out.

    Raises:
        ConfigError: naming file, line, column or id.
    """
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: dict[str, list[DPGQuestion]] = {}
    texts: dict[str, str] = {}
    places: dict[str, int] = {}
    last, skipped = None, not skip_first_row
    try:
        places = _header(next(reader, []), file)
        for values in reader:
            if not values:
                continue
            line = f"{file}:{reader.line_num}"
            if len(values) != len(places):
                raise ConfigError(f"{line}: the row has {len(values)} values, the header {len(places)}")
            row = {name: values[places[name]].strip() for name in COLUMNS}
            if not skipped:
                skipped = True
                continue
            item = row["item_id"]
            if not item:
                raise ConfigError(f"{line}: item_id is missing")
            if not _ID.fullmatch(item):
                raise ConfigError(f"{line}: item_id is {item!r}; it names a picture's file: letters, digits, _ and -")
            if item != last and item in rows:
                raise ConfigError(
                    f"{line}: item_id {item!r} appeared before other items; rows of an item follow each other"
                )
            question = _question(row, line)
            if any(question.id == other.id for other in rows.get(item, ())):
                raise ConfigError(f"{line}: item {item!r} has proposition_id {question.id} twice")
            if item not in rows and not row["text"]:
                raise ConfigError(f"{line}: item {item!r} has no text to draw")
            if row["text"] not in ("", texts.setdefault(item, row["text"])):
                raise ConfigError(f"{line}: item {item!r} has another text than in its row before")
            rows.setdefault(item, []).append(question)
            last = item
    except csv.Error as error:
        raise ConfigError(f"{file}:{reader.line_num}: not valid CSV ({error})") from error
    if not rows:
        raise ConfigError(f"{file}: holds no questions")
    return _complete(rows, texts, file, skip_first_row)


def questions_of(metadata: Mapping[str, Any]) -> tuple[DPGQuestion, ...]:
    """The questions that a prompt's metadata hold under `dpg`, as `as_metadata` writes them.

    Raises:
        RewardError: naming what is wrong.
    """
    entries = metadata[KEY]
    if not isinstance(entries, Sequence) or isinstance(entries, str) or not entries:
        raise RewardError(f"`{KEY}` must be a list of questions, found {entries!r:.100}")
    found: list[DPGQuestion] = []
    for number, entry in enumerate(entries):
        keys = ("id", "parents", "category", "question")
        if not isinstance(entry, Mapping) or set(entry) != set(keys):
            raise RewardError(f"`{KEY}[{number}]` must have the keys {', '.join(keys)}, found {entry!r:.100}")
        place = f"`{KEY}[{number}]"
        if not _is_id(entry["id"]):
            raise RewardError(f"{place}.id` is {entry['id']!r:.60}; it must be a whole number above 0")
        if not isinstance(entry["parents"], list) or not all(map(_is_id, entry["parents"])):
            raise RewardError(
                f"{place}.parents` is {entry['parents']!r:.60}; it must be a list of other questions' ids, [] for none"
            )
        for key in ("category", "question"):
            if not isinstance(entry[key], str) or not entry[key].strip():
                raise RewardError(f"{place}.{key}` is no text")
        question = DPGQuestion(entry["id"], tuple(entry["parents"]), entry["category"], entry["question"])
        if question.id in {other.id for other in found}:
            raise RewardError(f"`{KEY}[{number}].id` {question.id!r} appears twice")
        found.append(question)
    unknown = _dangling(found)
    if unknown:
        raise RewardError(f"`{KEY}`: a question depends on {unknown[1]!r}, which is no question of this prompt")
    return tuple(found)


def as_metadata(item: DPGItem) -> dict[str, Any]:
    """What a prompt file says of an item."""
    return {
        KEY: [
            {"id": q.id, "parents": list(q.parents), "category": q.category, "question": q.text} for q in item.questions
        ]
    }


def circular(questions: Sequence[DPGQuestion]) -> bool:
    """Whether a question depends on itself, at once or through others."""
    waiting = {question.id: set(question.parents) for question in questions}
    while free := [name for name, parents in waiting.items() if not parents & waiting.keys()]:
        for name in free:
            del waiting[name]
    return bool(waiting)


def _header(names: list[str], file: str) -> dict[str, int]:
    names = [name.strip() for name in names]
    for name in COLUMNS:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f"{near[0]!r} is not it" if near else f"it has {', '.join(names[:12]) or 'none'}"
            raise ConfigError(f"{file}: lacks the column {name!r} of a DPG-Bench question file; {hint}")
        if names.count(name) > 1:
            raise ConfigError(f"{file}: has the column {name!r} twice")
    return {name: index for index, name in enumerate(names)}


def _question(row: Mapping[str, str], line: str) -> DPGQuestion:
    number = _whole(row["proposition_id"], "proposition_id", line)
    if not number:
        raise ConfigError(f"{line}: proposition_id is 0, which means none in the column dependency")
    parents = [_whole(part.strip(), "dependency", line) for part in row["dependency"].split(",")]
    if not row["question_natural_language"]:
        raise ConfigError(f"{line}: question_natural_language is missing")
    category = row["category_broad"].lower()
    if not category:
        raise ConfigError(f"{line}: category_broad is missing")
    return DPGQuestion(
        number, tuple(parent for parent in parents if parent), category, row["question_natural_language"]
    )


def _whole(text: str, column: str, line: str) -> int:
    if not _NUMBER.fullmatch(text):
        raise ConfigError(f"{line}: {column} is {text!r:.60}; it must be whole numbers of at most 9 digits")
    return int(text)


def _complete(
    rows: Mapping[str, list[DPGQuestion]], texts: Mapping[str, str], file: str, drop: bool
) -> tuple[list[DPGItem], list[str]]:
    items, left_out = [], []
    for item, questions in rows.items():
        unknown = _dangling(questions)
        if unknown and drop and not items and not left_out:
            left_out.append(item)
        elif unknown:
            child, parent = unknown
            raise ConfigError(
                f"{file}: question {child} of item {item!r} depends on {parent}, which is no question of it"
            )
        else:
            items.append(DPGItem(item, texts[item], tuple(questions)))
    if not items:
        raise ConfigError(f"{file}: holds no item with all its questions")
    return items, left_out


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _dangling(questions: Sequence[DPGQuestion]) -> tuple[int, int] | None:
    """A question and a parent of it that is not there."""
    known = {question.id for question in questions}
    return next(((q.id, parent) for q in questions for parent in q.parents if parent not in known), None)
