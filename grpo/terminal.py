"""One printer for what users wrote (paths, prompts, names): shown as it is, never read as markup or as commands."""

from __future__ import annotations

import re

from rich.console import Console
from rich.text import Text

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
