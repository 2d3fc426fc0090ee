"""The table of seams: every private name of TRL, Ray and vLLM that we use, from the three files that hold them."""

from __future__ import annotations

import ast
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FILES = {"TRL": "grpo/training/trl_seams.py", "Ray": "rollout/ray_seams.py", "vLLM": "rollout/vllm_seams.py"}
URL = re.compile(r"https://[\w./-]*\w")
TEST = re.compile(r"\btest_\w+")


@dataclass(frozen=True)
class Seam:
    """One entry of a file of seams: a name, or a few that belong together."""

    line: int
    names: str
    text: str
    """Docstring or comment."""

    @property
    def reason(self) -> str:
        """The text without links and tests."""
        text = re.sub(r"\([^()]*https://[^()]*\)", "", self.text)  # a link with words around it
        text = TEST.sub("", re.sub(rf"{URL.pattern}(\s*\([^()]*\))?", "", text))
        text = re.sub(r"\s+([.,;:])", r"\1", " ".join(text.split()))
        return re.sub(r"[.,;:]{2,}(?= |$)", ".", text).strip(" ;,")


def build_page(root: Path) -> str:
    """The page, in Markdown."""
    lines = [
        "# Seams",
        "",
        "What this project uses of TRL, Ray and vLLM that they do not promise to keep. One file per library holds all "
        "of it; a test looks at every name on its own, so that a new version says by name what it has changed.",
    ]
    for library, file in FILES.items():
        lines += ["", f"## {library}", "", f"`{file}`", ""]
        lines += ["| name | what for, and why | upstream | test |", "|---|---|---|---|"]
        for seam in read_seams(root / file):
            links = ", ".join(f"[{'/'.join(url.split('/')[-2:])}]({url})" for url in URL.findall(seam.text))
            tests = ", ".join(f"`{test}`" for test in TEST.findall(seam.text))
            lines.append(f"| {seam.names} | {seam.reason.replace('|', chr(92) + '|')} | {links} | {tests} |")
    return "\n".join(lines) + "\n"


def read_seams(file: Path) -> list[Seam]:
    """Entries in the order of the file: documented functions, methods and values, and comments, that name a test."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    found = [*_documented(tree.body), *_commented(file)]
    return sorted((seam for seam in found if TEST.search(seam.text)), key=lambda seam: seam.line)


def _documented(body: list[ast.stmt]) -> Iterator[Seam]:
    for node, following in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, ast.ClassDef):
            yield from _documented(node.body)
        elif isinstance(node, ast.FunctionDef) and (text := ast.get_docstring(node)):
            yield Seam(node.lineno, f"`{node.name}`", text)
        elif isinstance(node, ast.Assign) and isinstance(following, ast.Expr):
            target = ast.unparse(node.targets[0]).replace("os.environ['", "").replace("']", "")
            yield Seam(node.lineno, f"`{target}`", str(ast.literal_eval(following.value)))


def _commented(file: Path) -> Iterator[Seam]:
    """Runs of comment lines, with the names below them up to the next blank line or comment; else the import above."""
    with tokenize.open(file) as stream:
        comments = {t.start[0]: t for t in tokenize.generate_tokens(stream.readline) if t.type == tokenize.COMMENT}
    lines = file.read_text(encoding="utf-8").splitlines()
    whole = [number for number, token in comments.items() if lines[number - 1].lstrip() == token.string]
    for first in (number for number in whole if number - 1 not in whole):
        last = first
        while last + 1 in whole:
            last += 1
        text = " ".join(comments[number].string.lstrip("# ") for number in range(first, last + 1))
        names = []
        for line in lines[last:]:
            if not (name := re.match(r'\s*"(\w+)":', line)):
                break
            names.append(f"`{name[1]}`")
        above = re.search(r"import (\w+)", "\n".join(lines[max(0, first - 4) : first - 1]).rpartition("from")[2])
        yield Seam(first, ", ".join(names) or (f"`{above[1]}`" if above else ""), text)
