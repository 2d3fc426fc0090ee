"""Text in pictures, in any script the machine has letters for: one run of text per font, `U+XXXX` where there is none.

DejaVu Sans comes with matplotlib and has Latin, Greek and Cyrillic. For what it lacks, the fonts of the machine are
looked through once. Left out: joining and direction of Arabic, Hebrew and Indic scripts.
"""

from __future__ import annotations

from functools import cache
from itertools import groupby
from pathlib import Path

import matplotlib
from matplotlib import font_manager
from matplotlib.ft2font import FT2Font
from PIL import ImageDraw, ImageFont

OWN = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"


class Lettering:
    """Measures and draws single lines.

    Args:
        size: of the letters, px.
    """

    def __init__(self, size: int):
        self.size = size

    def width(self, text: str) -> float:
        """Of a line, px."""
        return sum(_load(font, self.size).getlength(part) for font, part in runs(text))

    def draw(self, canvas: ImageDraw.ImageDraw, corner: tuple[float, float], text: str, fill: str) -> None:
        """Write a line with its upper left corner here."""
        x, y = corner
        baseline = y + _load(OWN, self.size).getmetrics()[0]
        for font, part in runs(text):
            letters = _load(font, self.size)
            canvas.text((x, baseline), part, fill=fill, font=letters, anchor="ls")
            x += letters.getlength(part)


def runs(text: str) -> list[tuple[Path, str]]:
    """The text in parts that one font each can write; characters that none can are named by their number."""
    letters = [(font, letter) if (font := font_of(letter)) else (OWN, f"U+{ord(letter):04X}") for letter in text]
    return [(font, "".join(part for _, part in group)) for font, group in groupby(letters, key=lambda pair: pair[0])]


@cache
def font_of(letter: str) -> Path | None:
    """The first font with this character: our own, then the machine's in the order of their names."""
    return next((font for font in (OWN, *_others()) if _characters(font).get_char_index(ord(letter))), None)


@cache
def _others() -> tuple[Path, ...]:
    found = []
    for name in sorted(font_manager.findSystemFonts()):
        try:
            ImageFont.truetype(name, 10)
            _characters(Path(name))
        except (OSError, RuntimeError):  # no font after all, or of a kind that only one of the two libraries reads
            continue
        found.append(Path(name))
    return tuple(found)


@cache
def _characters(font: Path) -> FT2Font:
    return FT2Font(str(font))


@cache
def _load(font: Path, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(font), size)
