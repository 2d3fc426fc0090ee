"""One parser of quotes: which texts does a prompt ask for?

Quotation marks: straight, curly and German ones, guillemets either way round, corner brackets, escaped (`\\"`) and
doubled ones. Not quotation marks: single quotes and apostrophes, inch and foot marks after a number, book title marks.
A mark of another kind inside a quotation belongs to its text.

A straight mark says neither whether it opens or closes nor whether it means inches, so a prompt has several readings.
Each unusual step costs something (`_SPACE`, `_INCH`, `_NESTED`, `_MIXED`); the cheapest reading in which every
quotation is closed counts. Found in one pass over the marks, keeping the cheapest way into each state.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from blip3o_grpo.rewards.ocr.normalise import letters
from blip3o_grpo.rewards.types import RewardError

_MARK = re.compile(
    r'\\*("+|[\u201c-\u201f\u00ab\u00bb\u2039\u203a\u275d\u275e\u300c-\u300f\u301d-\u301f\u2033\uff02\uff62\uff63])'
)
_PAIRS = frozenset(
    ["“”", "””", "”“", "„“", "„”", "‟”", "‟“", "«»", "»«", "»»", "‹›", "›‹", "❝❞", "「」", "『』", "〝〞", "〝〟", "″″"]
    + ["＂＂", "｢｣"]
)
"""Which mark closes which; a straight one closes a straight one of its kind."""
_OPENERS = frozenset(pair[0] for pair in _PAIRS)
_ENGLISH = '"\u201c\u201d\u201e\u201f\uff02'
"""Marks that careless typing mixes: one may close what another opened."""
_INCHES = '"\u2033\uff02'
"""Marks that mean inches after a number."""
_SPACE = 4
"""Cost of opening before white space, or of closing after it."""
_INCH = 3
"""Cost of opening directly after a number, or of not closing there."""
_MIXED = 5
"""Cost of closing with another mark than the one that opened."""
_NESTED = 4
"""Cost of a straight mark that opens inside of straight ones, as spaces tell: `"The "Big" Sale"`."""
_DOUBLED = 1
"""Cost of a doubled mark that stands for itself."""


@dataclass(frozen=True)
class _State:
    """Where a reading stands."""

    cost: int
    spans: tuple[str, ...] = ()
    opener: str = ""
    """Mark that is open; empty outside of quotations."""
    start: int = 0
    """Where the open quotation's text begins."""
    depth: int = 0
    """How many marks like the opener are open inside of it."""

    @property
    def key(self) -> tuple[str, int]:
        """States with the same key have the same future."""
        return self.opener, self.depth


@dataclass(frozen=True)
class _Mark:
    """One quotation mark (or a run of straight ones) and its surroundings."""

    sign: str
    """The mark; an escaped straight one with one backslash."""
    start: int
    end: int
    after_number: bool
    space_before: bool
    space_after: bool


def quoted_spans(prompt: str) -> list[str]:
    """Texts between quotation marks, in order, stripped; blank ones are left out, and those without a visible letter.

    Raises:
        RewardError: a quotation is never closed.
    """
    states = {("", 0): _State(0)}
    for mark in _marks(prompt):
        following: dict[tuple[str, int], _State] = {}
        for state in states.values():
            for step in _steps(state, mark, prompt):
                if step.key not in following or step.cost < following[step.key].cost:
                    following[step.key] = step
        states = following
    if ("", 0) not in states:
        last = min(states.values(), key=lambda state: state.cost)
        begin = last.start - len(last.opener)
        raise RewardError(
            f"prompt {prompt!r}: the quotation that begins with {prompt[begin : last.start + 20]!r} is never closed; "
            "close it, or write the text as the record's target_text"
        )
    return [span.strip() for span in states["", 0].spans if letters(span)]


def target_texts(prompt: str, metadata: Mapping[str, Any]) -> list[str]:
    """Texts the image should show: `target_text` of the metadata (a string or a list of them), else the quoted spans.

    An empty list means that text rendering does not apply to this prompt.

    Raises:
        RewardError: `target_text` is neither a string nor a list of strings, or a quotation is never closed.
    """
    wanted = metadata.get("target_text")
    if wanted is None:
        return quoted_spans(prompt)
    texts = [wanted] if isinstance(wanted, str) else wanted
    if not isinstance(texts, Sequence) or not all(isinstance(text, str) for text in texts):
        raise RewardError(f"prompt {prompt!r}: target_text must be a string or a list of strings, not {wanted!r}")
    return [text.strip() for text in texts if letters(text)]


def _marks(prompt: str) -> Iterator[_Mark]:
    for match in _MARK.finditer(prompt):
        before, after = prompt[: match.start()][-1:], prompt[match.end() :][:1]
        sign = match[1]
        yield _Mark(
            sign="\\" + sign if match[0] != sign and '"' in sign else sign,
            start=match.start(),
            end=match.end(),
            after_number=bool(before) and unicodedata.category(before) in ("Nd", "No"),
            space_before=before.isspace(),
            space_after=not after or after.isspace(),
        )


def _steps(state: _State, mark: _Mark, prompt: str) -> Iterator[_State]:
    """All states that one mark may lead to."""
    return _inside(state, mark, prompt) if state.opener else _outside(state, mark)


def _outside(state: _State, mark: _Mark) -> Iterator[_State]:
    straight = mark.sign[-1] == '"'
    may_open = straight or mark.sign in _OPENERS
    inches = mark.after_number and mark.sign[-1] in _INCHES
    if inches or not may_open:
        yield _State(state.cost, state.spans)
    elif mark.sign == "\u2033":  # a lone double prime is no unclosed quotation
        yield _State(state.cost + _INCH, state.spans)
    elif straight and mark.sign.count('"') % 2 == 0:  # nothing between the marks
        yield _State(state.cost + _DOUBLED, state.spans)
    if may_open:
        cost = _INCH * inches + _SPACE * mark.space_after
        yield _State(state.cost + cost, state.spans, mark.sign, mark.end)
        if mark.sign == '""' and not mark.space_after:
            yield _State(state.cost + _NESTED, state.spans, '"', mark.end - 1, 1)


def _inside(state: _State, mark: _Mark, prompt: str) -> Iterator[_State]:
    text = prompt[state.start : mark.start].replace('\\"', '"')
    text = text.replace('""', '"') if state.opener == '"' else text
    closed = (*state.spans, text)
    space = _SPACE * mark.space_before
    if mark.sign == state.opener if state.opener[-1] == '"' else state.opener + mark.sign in _PAIRS:
        if state.depth:
            yield replace(state, cost=state.cost + space, depth=state.depth - 1)
        else:
            if mark.sign[-1] == '"' and mark.space_before and not mark.space_after:
                yield replace(state, cost=state.cost + _NESTED, depth=1)
            yield _State(state.cost + space, closed)
            if mark.after_number:
                yield replace(state, cost=state.cost + _INCH)
    elif mark.sign == '""' and state.opener == '"':  # one text ends where the next begins, or a doubled mark inside
        yield _State(state.cost + space + _SPACE * mark.space_after, closed, state.opener, mark.end)
        yield replace(state, cost=state.cost + _DOUBLED)
        if mark.after_number or state.depth:  # inches, or a nested quotation, and then the end
            yield _State(state.cost + _INCH * (not state.depth), (*state.spans, f'{text}"'))
    else:
        yield replace(state, depth=state.depth + (mark.sign == state.opener))
        if mark.sign[-1] in _ENGLISH and state.opener[-1] in _ENGLISH:
            yield _State(state.cost + _MIXED + space, closed)
