"""Blocks of text (signs, panels, columns) found from the boxes of lines, and the orders in which they may be read.

One order is not enough: of two panels side by side each is read to its end, of one sentence with a box per word each
row is. So this module lists every plausible order, and `text_score` takes the best. Left-to-right scripts only.

A block is a chain of lines in which each is the only one right below the one before; a heading over two columns has two
below it, so it is a block of its own. No threshold on gaps between lines: a column with a gap stays one column.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise

Box = tuple[float, float, float, float]
"""x1, y1, x2, y2 in pixels, y downwards; of a picture that was turned until its text is level."""

_OVERLAP = 0.5
"""Two boxes share a row (or a column) if they overlap by more than this part of the smaller height (or width), and by
no smaller part than the other way: lines of tilted text overlap both ways, and stand below one another."""
_WORD_GAP = 1.0
"""Boxes of one row that are no further apart than this many heights may be words of one line."""
_MOST_PATHS = 50
"""Chains of blocks under one another that are tried; more come only from clutter."""


@dataclass(frozen=True)
class TextLine:
    """One recognised piece of text."""

    text: str
    confidence: float
    """In [0, 1]."""
    box: Box


@dataclass(frozen=True)
class _Piece:
    """Lines that are read one after the other, as indices, and the box around them."""

    lines: tuple[int, ...]
    box: Box


def reading_orders(lines: Sequence[TextLine]) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
    """All plausible orders as indices of lines, no two the same.

    Returns:
        Orders that hold every line (the first is row by row; a line belongs to a row if it shares that of the row's
        first line), and paths that hold some: a heading with one of the columns below it.
    """
    pieces = _pieces(lines)
    rows = _rows(pieces)
    whole, paths = [_flat(rows)], []
    for parts in (pieces, [_joined(words) for row in rows for words in _phrases(row)]):
        below = _below(parts)
        blocks = _blocks(parts, below)
        whole += [_flat(_rows(blocks)), _flat(_columns(blocks))]
        paths += islice(_paths(parts, below), _MOST_PATHS)
    return _indices(whole), _indices(paths)


def _pieces(lines: Sequence[TextLine]) -> list[_Piece]:
    """One piece per line, in an order that does not depend on how the lines came."""
    order = sorted(range(len(lines)), key=lambda index: (lines[index].box, lines[index].text))
    return [_Piece((index,), lines[index].box) for index in order]


def _joined(pieces: Sequence[_Piece]) -> _Piece:
    left, top, right, bottom = zip(*(piece.box for piece in pieces), strict=True)
    indices = tuple(index for piece in pieces for index in piece.lines)
    return _Piece(indices, (min(left), min(top), max(right), max(bottom)))


def _flat(groups: Sequence[Sequence[_Piece]]) -> list[_Piece]:
    return [piece for group in groups for piece in group]


def _indices(orders: Sequence[Sequence[_Piece]]) -> list[tuple[int, ...]]:
    return list(dict.fromkeys(tuple(index for piece in order for index in piece.lines) for order in orders))


def _overlap(first: Box, second: Box, axis: int) -> bool:
    """Whether two boxes share a column (axis 0) or a row (axis 1)."""
    common, smaller = _common(first, second, axis)
    across, narrower = _common(first, second, 1 - axis)
    return common > _OVERLAP * smaller and common * narrower >= across * smaller


def _common(first: Box, second: Box, axis: int) -> tuple[float, float]:
    """By how much two boxes overlap along an axis (below 0: the gap), and how far the smaller one reaches."""
    (low_a, high_a), (low_b, high_b) = first[axis::2], second[axis::2]
    return min(high_a, high_b) - max(low_a, low_b), min(high_a - low_a, high_b - low_b)


def _grouped(pieces: Sequence[_Piece], axis: int) -> list[list[_Piece]]:
    """Rows from the top (axis 1) or columns from the left (axis 0), each sorted along the other axis."""
    other = 1 - axis
    groups: list[list[_Piece]] = []
    for piece in sorted(pieces, key=lambda piece: (sum(piece.box[axis::2]), piece.box[other])):
        if groups and _overlap(groups[-1][0].box, piece.box, axis):
            groups[-1].append(piece)
        else:
            groups.append([piece])
    return [sorted(group, key=lambda piece: piece.box[other]) for group in groups]


def _rows(pieces: Sequence[_Piece]) -> list[list[_Piece]]:
    return _grouped(pieces, axis=1)


def _columns(pieces: Sequence[_Piece]) -> list[list[_Piece]]:
    return _grouped(pieces, axis=0)


def _phrases(row: Sequence[_Piece]) -> list[list[_Piece]]:
    """Cut a row where the gap is wider than one between words."""
    phrases = [[row[0]]]
    for left, right in pairwise(row):
        height = min(left.box[3] - left.box[1], right.box[3] - right.box[1])
        if right.box[0] - left.box[2] <= _WORD_GAP * height:
            phrases[-1].append(right)
        else:
            phrases.append([right])
    return phrases


def _below(pieces: Sequence[_Piece]) -> list[list[int]]:
    """For each piece, which pieces stand right below it: in its column, with none between that hides them."""
    middle = [piece.box[1] + piece.box[3] for piece in pieces]

    def under(upper: int, lower: int) -> bool:
        a, b = pieces[upper].box, pieces[lower].box
        return middle[upper] < middle[lower] and _overlap(a, b, axis=0) and not _overlap(a, b, axis=1)

    lower = [{other for other in range(len(pieces)) if under(index, other)} for index in range(len(pieces))]
    return [sorted(lows.difference(*(lower[between] for between in lows))) for lows in lower]


def _blocks(pieces: Sequence[_Piece], below: Sequence[Sequence[int]]) -> list[_Piece]:
    above = [[upper for upper, lows in enumerate(below) if index in lows] for index in range(len(pieces))]

    def follower(index: int) -> int | None:
        match below[index]:
            case [only] if len(above[only]) == 1:
                return only
        return None

    inner = {follower(index) for index in range(len(pieces))}
    blocks = []
    for index in range(len(pieces)):
        if index not in inner:
            chain, last = [pieces[index]], follower(index)
            while last is not None:
                chain.append(pieces[last])
                last = follower(last)
            blocks.append(_joined(chain))
    return blocks


def _paths(pieces: Sequence[_Piece], below: Sequence[Sequence[int]]) -> Iterator[list[_Piece]]:
    """Every way down from a piece that has none above it."""
    lower = {low for lows in below for low in lows}
    stack = [[index] for index in reversed(range(len(pieces))) if index not in lower]
    while stack:
        path = stack.pop()
        if below[path[-1]]:
            stack += [[*path, low] for low in reversed(below[path[-1]])]
        else:
            yield [pieces[index] for index in path]
