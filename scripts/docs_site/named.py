"""Does everything exist that a page names? Commands and options, keys, recipes, files, tests, names of the API, links.

Only what can be told apart from other text is looked at: code in backticks and fenced blocks of `bash`, `console`,
`yaml` and `python`. Links to other sites are checked for their form; nothing is fetched.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from scripts.docs_site.keys import SECTIONS, key_problem, yaml_problems
from scripts.docs_site.markdown import SHELLS, Block, Page, commands_of
from scripts.docs_site.names import PLACEHOLDER, Names
from scripts.docs_site.near import near
from scripts.docs_site.shell import PROGRAM, Shell

KEY = re.compile(r"([a-z_]+(?:(?:\.[a-z0-9_]+|\[\]))+)(?:[=:].*)?")
FILE = re.compile(r"\.(py|yaml|jsonl?|md|html|csv|png)$")


@dataclass(frozen=True, order=True)
class Problem:
    """Something that a page names and that does not exist."""

    path: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.text}"


@dataclass(frozen=True)
class Checker:
    """Looks at pages with the real command line, the real schema and the real files."""

    root: Path
    pages: Mapping[str, Page]
    """By path; those that are made at build time too."""
    made: Collection[str] = field(default=())
    """Paths of pages that only the site has: files of the repository cannot link there."""

    def problems(self, page: Page) -> list[Problem]:
        """What a page names that does not exist, in the order of the page."""
        found = [
            *self._links(page),
            *(item for line, code in page.codes for item in self._code(line, code)),
            *(item for block in page.blocks for item in self._block(block)),
        ]
        return [Problem(page.path, line, text) for line, text in dict.fromkeys(sorted(found))]

    @cached_property
    def _names(self) -> Names:
        return Names(self.root, self.pages)

    def _links(self, page: Page) -> Iterator[tuple[int, str]]:
        for line, target in page.links:
            problem = self._link(page, target)
            if problem:
                yield line, f"link {target!r}: {problem}"

    def _link(self, page: Page, target: str) -> str | None:
        parts = urlsplit(target)
        if parts.scheme:
            fine = parts.scheme in ("http", "https") and re.fullmatch(r"[\w-]+(\.[\w-]+)+(:\d+)?", parts.netloc)
            return None if fine else "it is not the address of a page"
        path = resolve(page.path, unquote(parts.path)) if parts.path else page.path
        if path is None:
            return "it leads out of the repository"
        if path in self.made and not (page.path in self.made or page.path.startswith("docs/")):
            return f"{path} is a page of the site only, not a file"
        if path not in self.pages:
            found = self.root / path
            in_site = page.path.startswith("docs/")  # which has files, and no folders to look into
            return None if found.is_file() or (found.is_dir() and not in_site) else f"there is no file {path}"
        if parts.fragment and not self._has_anchor(self.pages[path], parts.fragment):
            return f"{path} has no heading #{parts.fragment}{near(parts.fragment, self.pages[path].anchors)}"
        return None

    def _has_anchor(self, page: Page, fragment: str) -> bool:
        """Anchors of the API's names are made later; mkdocs itself looks at them."""
        return fragment in page.anchors or (fragment.startswith("blip3o_grpo.") and "\n::: " in page.text)

    def _code(self, line: int, code: str) -> Iterator[tuple[int, str]]:
        words = code.split()
        if words and (words[0] in (PROGRAM, "python", "bash", "pip") or "/bin/" in words[0]):
            yield from ((line, problem) for problem in Shell(self._names).problems(code))
            return
        for word in words:
            problem = self._names.word_problem(word) or (None if "(" in code or " = " in code else self._key_word(word))
            if problem:
                yield line, problem

    def _key_word(self, word: str) -> str | None:
        """A word such as `rollout.group_size=8`, whose first part is a section that a file may have."""
        key = KEY.fullmatch(word.strip("(),;"))
        if not key or key[1] == PLACEHOLDER:
            return None
        dotted = key[1].replace("[]", ".0")
        if dotted.partition(".")[0] not in SECTIONS or FILE.search(dotted):
            return None
        if self._names.module_file(["blip3o_grpo", *dotted.split(".")]):  # such as `rewards.images`
            return None
        return key_problem(dotted, ("run", "warmstart", "study"))

    def _block(self, block: Block) -> Iterator[tuple[int, str]]:
        if block.language in (*SHELLS, "console", "text", ""):
            for line, command in commands_of(block):
                yield from ((line, problem) for problem in Shell(self._names).problems(command))
        elif block.language in ("yaml", "yml"):
            yield from yaml_problems(block)
        elif block.language in ("python", "py"):
            yield from self._names.python_problems(block)


def resolve(page: str, target: str) -> str | None:
    """Path, from the root of the repository, of a link in a page; None if it leads out."""
    parts: list[str] = []
    for part in [*PurePosixPath(page).parent.parts, *PurePosixPath(target).parts]:
        if part == ".." and not parts:
            return None
        parts = parts[:-1] if part == ".." else [*parts, *([part] if part != "." else [])]
    return "/".join(parts)
