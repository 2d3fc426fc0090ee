"""Which target is where in the picture: each occurrence counts for one target only.

Texts that are there letter by letter are given out first, the longest first, so that `NO` does not take a part of
`NOW`. What they leave is compared with the other targets, the best match first.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from blip3o_grpo.rewards.ocr.normalise import letters, words

_TAKEN = "\0"
"""Stands where a letter has been given to a target."""
_INSIDE, _WORD, _LINE = range(3)
"""Where an occurrence begins or ends: inside a word, at the edge of a word, at the edge of a line."""


@dataclass(frozen=True)
class _Place:
    """One occurrence of a target."""

    parts: tuple[tuple[int, int, int], ...]
    """(line, first letter, end) of each line it covers."""
    edges: int
    """The worse of its two ends."""


def occurrence_scores(
    texts: Sequence[str],
    orders: Sequence[Sequence[int]],
    targets: Sequence[str],
    score: Callable[[str, str], float],
    whole_words: bool,
) -> list[float]:
    """Score of each target, in [0, 1], every letter of the picture used once at most.

    Args:
        texts: one per line, as recognised.
        orders: plausible orders of (some of) the lines, as indices.
        targets: texts that are not blank.
        score: scores the letters of a run of lines against the letters of a target, 1 for equal ones.
        whole_words: verbatim occurrences consist of whole words, and targets use up every line they share.
    """
    wanted = [letters(target) for target in targets]
    places, rest = _verbatim(texts, orders, wanted, whole_words)
    scores = [float(place is not None) for place in places]
    missing = [target for target, place in enumerate(places) if place is None]
    rest = [re.sub(f"{_TAKEN}+", _TAKEN, text).strip(_TAKEN) for text in rest]
    scored: list[dict[str, float]] = [{} for _ in wanted]
    while missing:
        best = [_closest(rest, orders, wanted[target], score, scored[target]) for target in missing]
        value, lines = max(best, key=lambda match: match[0])
        scores[missing.pop([match[0] for match in best].index(value))] = value
        rest = ["" if line in lines else text for line, text in enumerate(rest)]
    return scores


def _verbatim(
    texts: Sequence[str], orders: Sequence[Sequence[int]], wanted: Sequence[str], whole_words: bool
) -> tuple[list[_Place | None], list[str]]:
    """Give targets their verbatim occurrences; also returns each line's letters with the given ones marked."""
    least = [_WORD if whole_words else _INSIDE] * len(wanted)
    edges = [_word_edges(text) for text in texts]
    while True:
        rest = [letters(text) for text in texts]
        places: list[_Place | None] = [None] * len(wanted)
        for target in sorted(range(len(wanted)), key=lambda target: (-len(wanted[target]), wanted[target])):
            found = (place for place in _places(rest, edges, orders, wanted[target]) if place.edges >= least[target])
            place = min(found, key=lambda place: (-place.edges, len(place.parts), place.parts), default=None)
            places[target] = place
            for line, start, end in place.parts if place else ():
                rest[line] = rest[line][:start] + _TAKEN * (end - start) + rest[line][end:]
        broken = {line for line, text in enumerate(rest) if whole_words and text.strip(_TAKEN)}
        culprits = [
            target for target, place in enumerate(places) if place and any(line in broken for line, _, _ in place.parts)
        ]
        if not culprits:
            return places, rest
        for target in culprits:
            least[target] = _LINE


def _word_edges(text: str) -> set[int]:
    return set(accumulate((len(word) for word in words(text)), initial=0))


def _places(
    rest: Sequence[str], edges: Sequence[set[int]], orders: Sequence[Sequence[int]], target: str
) -> Iterator[_Place]:
    for order in orders:
        joined = "".join(rest[line] for line in order)
        start = joined.find(target)
        while start >= 0:
            yield _place(rest, edges, order, start, start + len(target))
            start = joined.find(target, start + 1)


def _place(rest: Sequence[str], edges: Sequence[set[int]], order: Sequence[int], start: int, end: int) -> _Place:
    parts = []
    for line in order:
        length = len(rest[line])
        if start < length and end > 0:
            parts.append((line, max(start, 0), min(end, length)))
        start, end = start - length, end - length
    (first, begins, _), (last, _, ends) = parts[0], parts[-1]
    at_start = _LINE if begins == 0 else _WORD if begins in edges[first] else _INSIDE
    at_end = _LINE if ends == len(rest[last]) else _WORD if ends in edges[last] else _INSIDE
    return _Place(tuple(parts), min(at_start, at_end))


def _closest(
    rest: Sequence[str],
    orders: Sequence[Sequence[int]],
    target: str,
    score: Callable[[str, str], float],
    scored: dict[str, float],
) -> tuple[float, tuple[int, ...]]:
    """The run of lines that scores best, and its lines; (0, ()) if none scores. `scored` keeps the scores of runs."""
    best = (0.0, ())
    for order in orders:
        order = [line for line in order if rest[line]]
        for start in range(len(order)):
            run = ""
            for end in range(start, len(order)):
                run += rest[order[end]]
                if run not in scored:
                    scored[run] = score(run, target)
                if scored[run] > best[0]:
                    best = scored[run], tuple(order[start : end + 1])
                if len(run) > 2 * len(target) and (not scored[run] or len(target) < best[0] * len(run)):
                    break  # a longer run cannot score more
    return best


def found_words(
    wanted: Sequence[str], read: Sequence[str | None], ends: Container[int] = ()
) -> tuple[int, list[str | None]]:
    """How many of the wanted words were read, each occurrence used once, and what is left: None for a word in use.

    Recognisers drop and invent spaces beside symbols, so there a space is not held against the picture: `C++&C#` holds
    the three words `C++ & C#`. Nor is the end of a line: letters that stand below one another are a word.

    Args:
        wanted: words of a target.
        read: words of the picture.
        ends: how many words have been read where a line ends.
    """
    left: list[str | None] = list(read)
    missing: list[str | None] = list(wanted)
    for number, word in enumerate(wanted):
        if word in left:
            left[left.index(word)] = missing[number] = None
    runs = _soft_runs(missing)
    longest = max((len(joined) for _, _, joined in runs), default=math.inf)
    for start, end, joined in runs:
        if None in missing[start:end]:
            continue
        for begin, stop, same in _soft_runs(left, ends, longest):
            if same == joined:
                missing[start:end] = [None] * (end - start)
                left[begin:stop] = [None] * (stop - begin)
                break
    return missing.count(None), left


def _soft_runs(
    tokens: Sequence[str | None], ends: Container[int] = (), longest: float = math.inf
) -> list[tuple[int, int, str]]:
    """Runs of neighbours with a symbol or the end of a line at each gap, the longest first: (start, end, joined).

    Args:
        tokens: words; None where one is in use.
        ends: how many words come before the end of a line.
        longest: letters that a run has at most.
    """
    runs = []
    for start in range(len(tokens)):
        num_letters = 0
        for end in range(start + 1, len(tokens) + 1):
            last = tokens[end - 1]
            if last is None:
                break
            num_letters += len(last)
            apart = end - start > 1 and end - 1 not in ends and tokens[end - 2][-1].isalnum() and last[0].isalnum()
            if apart or num_letters > longest:
                break
            runs.append((start, end, "".join(tokens[start:end])))
    return sorted(runs, key=lambda run: run[0] - run[1])
