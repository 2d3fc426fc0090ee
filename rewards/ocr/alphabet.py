"""Which letters a recogniser can read: looked up in its files, without loading its network.

A target with letters beyond them could never score, however good the picture, so such prompts are refused in the check.
A symbol or a vulgar fraction beyond them costs its share of the score only, as in `Room 13⅓`, so it is let through
unless nothing else is wanted.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from blip3o_grpo.configs.regular_files import read_bytes, read_text
from blip3o_grpo.rewards.ocr.normalise import letters
from blip3o_grpo.rewards.types import RewardError

_METADATA_FIELD = 14
_KEY_FIELD, _VALUE_FIELD = 1, 2
"""Numbers of the fields in the ONNX format's messages (onnx.proto: ModelProto, StringStringEntryProto)."""


@cache
def readable_letters(file: Path) -> frozenset[str]:
    """Characters that a recogniser can read, in the form in which scores compare them.

    Args:
        file: PaddleOCR's `inference.yml` of the recogniser, or its `.onnx` file.

    Raises:
        RewardError: the file holds no characters.
    """
    alphabet = onnx_alphabet(file) if file.suffix == ".onnx" else _yaml_alphabet(file)
    return frozenset(part for character in alphabet for part in letters(character))


def unreadable(targets: Sequence[str], readable: frozenset[str]) -> list[str]:
    """Letters and digits of the targets that cannot be read, in order; all characters of a target that has no others.

    A digit is one of a script's ten digits; letters include the marks that scripts put on them.
    """
    beyond: dict[str, None] = {}
    for target in targets:
        wanted = [character for character in unicodedata.normalize("NFC", target) if letters(character)]
        missing = [character for character in wanted if not readable.issuperset(letters(character))]
        whole = len(missing) == len(wanted)
        beyond |= dict.fromkeys(character for character in missing if whole or _is_letter(character))
    return list(beyond)


def _is_letter(character: str) -> bool:
    return unicodedata.category(character).startswith(("L", "M", "Nd"))


def onnx_alphabet(file: Path) -> list[str]:
    """The characters that an OCR network's ONNX file lists in its metadata.

    Raises:
        RewardError: it lists none.
    """
    for number, entry in _fields(memoryview(read_bytes(file))):
        if number == _METADATA_FIELD:
            fields = {number: bytes(part).decode() for number, part in _fields(entry)}
            if fields.get(_KEY_FIELD) == "character":
                return fields[_VALUE_FIELD].split("\n")
    raise RewardError(f"{file}: its metadata has no 'character', so its letters are unknown; give its inference.yml")


def _yaml_alphabet(file: Path) -> list[str]:
    alphabet = read_settings(file, "PostProcess", "character_dict")
    if not isinstance(alphabet, list) or not all(isinstance(character, str) for character in alphabet):
        raise RewardError(f"{file}: PostProcess.character_dict must be a list of characters")
    return alphabet


def read_settings(file: Path, section: str, key: str) -> Any:
    """One value of PaddleOCR's `inference.yml`.

    Raises:
        RewardError: the file cannot be read, or has no such value.
    """
    try:
        return yaml.load(read_text(file), Loader=yaml.CSafeLoader)[section][key]
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise RewardError(f"{file}: no {section}.{key} in it ({type(error).__name__}: {reason})") from error


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """(number, content) of the length-delimited fields of a protocol buffer; others are passed over."""
    place = 0
    while place < len(message):
        tag, place = _varint(message, place)
        kind = tag & 7
        if kind == 0:
            _, place = _varint(message, place)
        elif kind == 2:
            length, place = _varint(message, place)
            yield tag >> 3, message[place : place + length]
            place += length
        else:
            place += {1: 8, 5: 4}[kind]


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    """A number of seven bits a byte, the lowest first, and the place after it."""
    value = shift = 0
    while True:
        byte = message[place]
        value |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return value, place
