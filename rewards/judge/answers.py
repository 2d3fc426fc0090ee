"""What a judge's words say, read strictly: an answer in any other form than the one asked for is no answer.

Left out on purpose: looking for a yes or a number inside prose. It would turn an evasion into a score.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

Value = TypeVar("Value")

_WHOLE = re.compile(r"0|-?[1-9][0-9]{0,8}")
_MASSES = re.compile(r"P\(yes\)=([0-9.e-]+), P\(no\)=([0-9.e-]+)")


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
    num_likeliest: int = 0
    """What is read are so many of the likeliest first tokens, as `first_token` writes them; 0: the judge's words."""


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


def first_token(likeliest: Iterable[tuple[str, float]]) -> str:
    """What a judge's first token says: `P(yes)=0.5, P(no)=0.25`, or the tokens where neither word is among them.

    Args:
        likeliest: tokens and the logarithms of their probabilities. Those of a word are added up, whatever their case
            and spaces before it.
    """
    tokens, masses = [], {"yes": 0.0, "no": 0.0}
    for token, logprob in likeliest:
        tokens.append(token)
        word = token.lstrip(" ").lower()
        if word in masses:
            masses[word] += math.exp(min(logprob, 0.0))
    if not any(masses.values()):
        return f"first one of {', '.join(map(repr, tokens))}"
    return f"P(yes)={masses['yes']!r}, P(no)={masses['no']!r}"


def read_yes_probability(text: str) -> float:
    """P(yes) / (P(yes) + P(no)) of what `first_token` wrote, in [0, 1].

    Raises:
        UnparseableError: neither word was among the tokens.
    """
    found = _MASSES.fullmatch(text)
    if found is None:
        raise UnparseableError(text)
    yes, no = map(float, found.groups())
    return yes / (yes + no)


YES_PROBABILITY = Form("exactly yes or no", read_yes_probability, 1, num_likeliest=20)
"""20 are the most that servers tell."""


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
