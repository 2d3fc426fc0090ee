"""One printer for what users wrote (paths, prompts, names): shown as it is, never read as markup or as commands."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

if TYPE_CHECKING:
    from blip3o_grpo.evaluation.statistics import Estimate

_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def printable(text: str) -> str:
    """The text with control characters, which steer terminals, and halves of surrogate pairs, which none can show, as
    replacement characters."""
    return _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text)


def plain(*parts: str | tuple[str, str]) -> Text:
    """One line of text; a part may be `(text, style)`."""
    styled = [(part, "") if isinstance(part, str) else part for part in parts]
    return Text.assemble(*((printable(text), style) for text, style in styled))


def show(console: Console, *parts: str | tuple[str, str]) -> None:
    """Print one line, however long, as it is."""
    console.print(plain(*parts), soft_wrap=True, highlight=False)


def is_live(console: Console) -> bool:
    """Whether lines that were printed can be drawn again: not in a pipe, a file, a notebook or a dumb terminal."""
    return console.is_terminal and not console.is_dumb_terminal and console.file.isatty()


def in_words(found: Estimate | None, form: str = ".3f") -> str:
    """A mean in a table's cell, its interval and n below it; a dash for what nothing allows."""
    return "–" if found is None else f"{found.mean:{form}}\n({found.interval_and_n(form)})"
