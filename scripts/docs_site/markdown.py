"""What a page is made of, with line numbers: code blocks, words in code, links, headings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from markdown.extensions.toc import slugify, unique

FENCE = re.compile(r"^(?P<indent> *)(?P<mark>```+|~~~+) *(?P<language>[\w+-]*)[^`]*$")
CODE = re.compile(r"(?<!`)(`+)(?!`)((?:(?!\n\s*\n).)+?)(?<!`)\1(?!`)", re.DOTALL)
LINK = re.compile(r"!?\[(?:[^\[\]]|\[[^\[\]]*\])*\]\(\s*<?([^)\s>]*)>?(?:\s+\"[^\"]*\")?\s*\)")
REFERENCE = re.compile(r"^ {0,3}\[[^\]]+\]:\s+<?([^\s>]+)>?", re.MULTILINE)
HTML_LINK = re.compile(r"\b(?:href|src|srcset)=\"([^\"\s]*)\"")
SHELLS = ("bash", "sh", "shell")
SESSION = re.compile(r"\$ |\S*\bblip3o-grpo ")
HEADING = re.compile(r"^(#{1,6}) +(.*?)(?: *\{[^}]*\})?(?: +#+)? *$")
IDENTIFIER = re.compile(r"\{[^}]*#([\w.-]+)[^}]*\}|\bid=\"([^\"]+)\"")


@dataclass(frozen=True)
class Block:
    """A fenced code block; `line` is that of its first line of code."""

    line: int
    language: str
    text: str


@dataclass(frozen=True)
class Page:
    """A page of the documentation, or README or CONTRIBUTING."""

    path: str
    """From the root of the repository, with slashes."""
    text: str

    @cached_property
    def _parts(self) -> tuple[list[Block], str]:
        blocks, prose, inside = [], [], None
        for number, line in enumerate(self.text.splitlines(), 1):
            fence = FENCE.match(line)
            if inside is None and fence:
                inside = (fence["mark"], number + 1, fence["language"], len(fence["indent"]), [])
            elif inside is not None and line.strip().startswith(inside[0]) and not line.strip().strip(inside[0][0]):
                blocks.append(Block(inside[1], inside[2], "\n".join(inside[4])))
                inside = None
            elif inside is not None:
                inside[4].append(line[inside[3] :])
                prose.append("")
                continue
            else:
                prose.append(line)
                continue
            prose.append("")
        return blocks, "\n".join(prose)

    @property
    def blocks(self) -> list[Block]:
        """Its fenced code blocks."""
        return self._parts[0]

    @cached_property
    def codes(self) -> list[tuple[int, str]]:
        """Line and text of everything in backticks; a text over two lines has a space between."""
        prose = self._parts[1]
        return [(_line(prose, code), " ".join(code[2].split())) for code in CODE.finditer(prose)]

    @cached_property
    def links(self) -> list[tuple[int, str]]:
        """Line and target of every link and picture."""
        prose = CODE.sub(lambda code: re.sub(r"[^\n]", "x", code[0]), self._parts[1])
        found = [link for form in (LINK, REFERENCE, HTML_LINK) for link in form.finditer(prose)]
        return sorted((_line(prose, link), link[1]) for link in found)

    @cached_property
    def anchors(self) -> set[str]:
        """What a link to this page may have after `#`."""
        found: set[str] = set()
        for line in self._parts[1].splitlines():
            given = [name for pair in IDENTIFIER.findall(line) for name in pair if name]
            found.update(given)
            heading = HEADING.match(line)
            if heading and not given:
                unique(slugify(_plain(heading[2]), "-"), found)
        return found


def _line(text: str, match: re.Match[str]) -> int:
    return text.count("\n", 0, match.start()) + 1


def _plain(heading: str) -> str:
    """A heading's text as the browser shows it."""
    return re.sub(r"[`*]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading))


def commands_of(block: Block) -> Iterator[tuple[int, str]]:
    """Line and text of each command of a shell block; of other text only what is after `$ `, or is our program.

    What a line's end `\\` or an open quotation goes on with belongs to it.
    """
    start, kept = 0, ""
    for number, line in enumerate(block.text.splitlines(), block.line):
        if block.language not in SHELLS and not kept and not SESSION.match(line):
            continue  # what a command has printed, or something else
        start = start or number
        kept += line.removeprefix("$ ").rstrip().removesuffix("\\") + " "
        if line.rstrip().endswith("\\") or re.sub(r"#.*", "", kept).count("'") % 2:
            continue
        if kept.strip() and not kept.lstrip().startswith("#"):
            yield start, kept.strip()
        start, kept = 0, ""
