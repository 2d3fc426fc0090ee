"""Words that are broken at the end of a line, `INTER-` over `NATIONAL`, become whole where a target has them whole."""

from __future__ import annotations

from collections.abc import Sequence

from blip3o_grpo.rewards.ocr.normalise import words


def mended(texts: Sequence[str], orders: Sequence[Sequence[int]], targets: Sequence[str]) -> list[str]:
    """The texts of lines with broken words in the line where they begin; a line may be left without text.

    A hyphen stays where some target has it, as in `T-` over `SHIRT`, and where no target asks for the whole word.

    Args:
        texts: one per line, as recognised.
        orders: plausible orders of (some of) the lines, as indices.
        targets: texts wanted.
    """
    wanted = {word for target in targets for word in words(target)}
    texts = list(texts)
    for order in orders:
        for place, line in enumerate(order):
            read = words(texts[line])
            if read and _is_broken(read[-1]):
                _mend(texts, read, order[place:], wanted)
    return texts


def _mend(texts: list[str], read: list[str], lines: Sequence[int], wanted: set[str]) -> None:
    """Put the last word of the first of these lines together with what follows, over as many lines as it takes."""
    whole = spelt = read[-1]
    for place, line in enumerate(lines[1:], 1):
        following = words(texts[line])
        if not following:
            return
        whole, spelt = whole[:-1] + following[0], spelt + following[0]
        if spelt in wanted:
            return
        if whole in wanted:
            texts[lines[0]] = " ".join([*read[:-1], whole])
            texts[line] = " ".join(following[1:])
            for between in lines[1:place]:
                texts[between] = ""
            return
        if len(following) > 1 or not _is_broken(whole):
            return


def _is_broken(word: str) -> bool:
    return len(word) > 1 and word[-1] == "-" and word[-2].isalpha()
