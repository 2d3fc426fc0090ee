"""What a judge's words say, read strictly: an answer in any other form than the one asked for is no answer.

Left out on purpose: looking for a yes or a number inside prose. It would turn an evasion into a score.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

Value = TypeVar("Value")

_WHOLE = re.compile(r"0|-?[1-9][0-9]{0,8}")


class UnparseableError(ValueError):
    """The words are not in the form that was asked for."""


@dataclass(frozen=True)
class Form(Generic[Value]):
    """A form of answers."""

    words: str
    """How it is asked for, and named in messages: `exactly yes or no`."""
    read: Callable[[str], Value]
    """The value that an answer says; raises UnparseableError."""
    max_tokens: int
    """More than an answer in this form needs."""


def read_yes(text: str) -> float:
    """1 for `yes`, 0 for `no`, in any case and with white space around; nothing else.

    Raises:
        UnparseableError: `Yes!`, prose, nothing.
    """
    word = text.strip().lower()
    if word not in ("yes", "no"):
        raise UnparseableError(text)
    return float(word == "yes")


YES = Form("exactly yes or no", read_yes, 8)


def whole_number(low: int, high: int) -> Form[int]:
    """One whole number from `low` to `high`, in digits and nothing else."""

    def read(text: str) -> int:
        word = text.strip()
        if not _WHOLE.fullmatch(word) or not low <= int(word) <= high:
            raise UnparseableError(text)
        return int(word)

    return Form(f"exactly one whole number from {low} to {high}", read, 16)


def labelled_numbers(labels: tuple[str, ...], low: int, high: int) -> Form[dict[str, int]]:
    """A line `LABEL: NUMBER` for every label, in their order, and nothing else but empty lines."""
    number = whole_number(low, high)

    def read(text: str) -> dict[str, int]:
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        if len(lines) != len(labels):
            raise UnparseableError(text)
        found = {}
        for label, line in zip(labels, lines, strict=True):
            name, separator, value = line.partition(":")
            if not separator or name.strip().lower() != label.lower():
                raise UnparseableError(text)
            found[label] = number.read(value)
        return found

    shown = ", ".join(f"`{label}: NUMBER`" for label in labels)
    return Form(
        f"exactly {len(labels)} lines, {shown}, with whole numbers from {low} to {high}", read, 32 * len(labels)
    )


def read_transcript(text: str) -> str:
    """Any text but none: a judge that sees no text was told what to answer.

    Raises:
        UnparseableError: nothing.
    """
    if not text.strip():
        raise UnparseableError(text)
    return text.strip()
