"""Reads prompt files: `.txt` (one caption a line) or `.jsonl` (`prompt` plus any metadata), UTF-8."""

from __future__ import annotations

import hashlib
from pathlib import Path

from blip3o_grpo.configs.regular_files import read_bytes
from blip3o_grpo.configs.strict_json import parse_json
from blip3o_grpo.policies.blip3o_next.prompt_encoder import PromptError, unusable_character
from blip3o_grpo.rollout.types import Prompt

__all__ = ["PromptError", "load_prompts"]

MAX_LINE = 100_000
"""Characters; no model's context holds as much."""


def load_prompts(path: str | Path) -> list[Prompt]:
    """All prompts of a file, in its order; blank lines are skipped.

    A prompt's id is its line's `id`, or a hash of the whole line: the same line has the same id in every file.

    Raises:
        PromptError: the file is missing, empty, not UTF-8 or of another kind, or a line is not usable (names the line).
    """
    path = Path(path)
    if path.is_dir():
        raise PromptError(f"{path}: is a folder; give a prompt file (.txt or .jsonl)")
    if path.suffix not in (".txt", ".jsonl"):
        raise PromptError(f"{path}: prompt files end in .txt (one prompt a line) or .jsonl, not {path.suffix!r}")
    try:
        data = read_bytes(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise PromptError(f"{path}: no such prompt file") from error
    except OSError as error:
        raise PromptError(f"{path}: cannot be read ({error.strerror})") from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise PromptError(
            f"{path}:{line}: not valid UTF-8 (byte {data[error.start]:#04x}); save the file as UTF-8"
        ) from error
    read_line = _read_text_line if path.suffix == ".txt" else _read_json_line
    prompts: list[Prompt] = []
    first_line: dict[str, int] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        if len(line) > MAX_LINE:
            raise PromptError(f"{path}:{number}: the line has {len(line)} characters, more than {MAX_LINE}")
        prompt = read_line(line.strip(), f"{path}:{number}")
        if character := unusable_character(prompt.text):
            raise PromptError(f"{path}:{number}: the prompt holds the character {character}, which is no text")
        if prompt.id in first_line:
            raise PromptError(
                f"{path}:{number}: prompt id {prompt.id!r} was used in line {first_line[prompt.id]}; "
                "ids name seeds and records, so they must differ (remove the repeated line, or give each an `id`)"
            )
        first_line[prompt.id] = number
        prompts.append(prompt)
    if not prompts:
        raise PromptError(f"{path}: the file holds no prompts")
    return prompts


def _read_text_line(line: str, place: str) -> Prompt:
    return Prompt(id=_line_id(line), text=line)


def _read_json_line(line: str, place: str) -> Prompt:
    try:
        record = parse_json(line)
    except ValueError as error:
        raise PromptError(f"{place}: {error}") from error
    if not isinstance(record, dict):
        raise PromptError(f"{place}: expected an object with the key `prompt`, found {type(record).__name__}")
    text = record.pop("prompt", None)
    if not isinstance(text, str) or not text.strip():
        raise PromptError(f"{place}: the key `prompt` is missing or holds no text")
    name = record.pop("id", None)
    if name is not None and (isinstance(name, bool) or not isinstance(name, str | int) or not str(name).strip()):
        raise PromptError(f"{place}: `id` must be a string or an integer, found {name!r:.100}")
    if name is not None and (character := unusable_character(str(name))):
        raise PromptError(f"{place}: `id` holds the character {character}, which is no text")
    return Prompt(id=_line_id(line) if name is None else str(name), text=text.strip(), metadata=record)


def _line_id(line: str) -> str:
    return hashlib.blake2b(line.encode(), digest_size=6).hexdigest()
