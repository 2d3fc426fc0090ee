"""Names in code on pages: paths of the checkout, tests, modules, the public API, extras; and Python blocks."""

from __future__ import annotations

import ast
import re
from collections.abc import Container, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import blip3o_grpo
from blip3o_grpo.configs.shipped import RECIPES, STUDIES
from scripts.docs_site.keys import SECTIONS, key_problem
from scripts.docs_site.markdown import Block
from scripts.docs_site.near import near

FOLDERS = ("configs", "docs", "examples", "grpo", "policies", "requirements", "rewards", "rollout", "scripts", "tests")
"""Of the checkout: a path in backticks that begins with one of them must exist."""
PARTS = ("configs", "policies", "rewards", "rollout")
"""Folders that are sub-packages; grpo/ is the package itself."""
LOADERS = {"load_recipe": RECIPES, "load_warmstart": RECIPES, "load_study": STUDIES}
SCHEMA_OF = {"warmstart": ("warmstart",), "load_warmstart": ("warmstart",), "ablate": ("study", "run")}
"""Commands and functions that take settings of something else than a run."""
SETTING = re.compile(r"([a-z_]+(?:\.[a-z0-9_]+)*)=")
PLACEHOLDER = "section.key"
SHIPPED = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True)
class Names:
    """What exists in a checkout."""

    root: Path
    pages: Container[str]
    """Paths of all pages, those too that are made at build time."""

    def word_problem(self, word: str) -> str | None:
        """Paths of the checkout, names of tests, names of modules and of the API."""
        word = word.strip("(),;\"'").removeprefix("./").rstrip(".:")
        path, _, member = word.partition("::")
        if re.fullmatch(r"test_\w+", path):
            return None if path in self._tests else f"there is no test {path}{near(path, self._tests)}"
        if re.fullmatch(r"test_\w+\.py", path):
            return None if any(self.root.glob(f"tests/**/{path}")) else f"there is no file {path} under tests/"
        if path.startswith("blip3o_grpo.") and re.fullmatch(r"[\w.]+", path):
            return self._module_problem(path)
        if re.fullmatch(r"bg\.\w+", path):
            return self._api_name(path[3:])
        if re.fullmatch(r"[\w-]+\.md", path):
            files = (self.root / path, self.root / "docs" / path)
            return None if f"docs/{path}" in self.pages or any(map(Path.is_file, files)) else f"there is no page {path}"
        if path.split("/")[0] not in FOLDERS or "/" not in path or re.search(r"[<>{}$]|\.\.\.|[A-Z]{3,}(/|$)", path):
            return None
        if not (path in self.pages or any(self.root.glob(path.rstrip("/")))):
            return f"there is no {path} in the repository{near(path, self._siblings(path))}"
        if member and member.partition("[")[0] not in (self.root / path).read_text(encoding="utf-8"):
            return f"{path} has no {member}"
        return None

    def _siblings(self, path: str) -> list[str]:
        folder = (self.root / path).parent
        return [file.relative_to(self.root).as_posix() for file in folder.iterdir()] if folder.is_dir() else []

    @cached_property
    def _tests(self) -> set[str]:
        files = self.root.glob("tests/**/*.py")
        return {name for file in files for name in re.findall(r"def (test_\w+)", file.read_text(encoding="utf-8"))}

    def _api_name(self, name: str) -> str | None:
        known = blip3o_grpo.__all__
        return None if name in known else f"blip3o_grpo has no {name}{near(name, known)}"

    def module_file(self, parts: list[str]) -> Path | None:
        """Source of a module of the package, found without importing anything."""
        folder = self.root if parts[1:2] and parts[1] in PARTS else self.root / "grpo"
        module = folder.joinpath(*parts[1:])
        files = (module.with_suffix(".py") if parts[1:] else module / "__init__.py", module / "__init__.py")
        return next((file for file in files if file.is_file()), None)

    def _module_problem(self, dotted: str) -> str | None:
        """A name inside the package: its longest part that is a module must define, or import, the rest."""
        parts = dotted.split(".")
        for length in range(len(parts), 0, -1):
            file = self.module_file(parts[:length])
            if file is None:
                continue
            stub = file.with_suffix(".pyi")
            source = file.read_text(encoding="utf-8") + (stub.read_text(encoding="utf-8") if stub.is_file() else "")
            missing = length < len(parts) and not re.search(rf"\b{parts[length]}\b", source)
            return f"{'.'.join(parts[:length])} has no {parts[length]}" if missing else None
        return f"there is no module {dotted}"

    def extras_problem(self, names: list[str]) -> str | None:
        """Extras of the package, as in `pip install '.[cuda]'`."""
        text = (self.root / "pyproject.toml").read_text(encoding="utf-8")
        known = re.findall(r"^(\w+) = \[", text.partition("[project.optional-dependencies]")[2], re.MULTILINE)
        unknown = [name for name in names if name not in known]
        return f"pyproject.toml has no extra {unknown[0]!r}{near(unknown[0], known)}" if unknown else None

    def value_problems(self, word: str, schemas: tuple[str, ...], recipes: Path | None) -> Iterator[str]:
        """An argument or the value of an option: a setting, the name of a shipped recipe, or a path."""
        setting = SETTING.match(word)
        if setting:
            if setting[1] != PLACEHOLDER and (problem := key_problem(setting[1], schemas)):
                yield problem
        elif recipes and SHIPPED.fullmatch(word):
            if problem := _shipped(word, recipes):
                yield problem
        elif problem := self.word_problem(word):
            yield problem

    def python_problems(self, block: Block) -> Iterator[tuple[int, str]]:
        """Line and text of what a block calls or imports, or gives to a loader, and that does not exist."""
        try:
            tree = ast.parse(block.text)
        except SyntaxError as error:
            yield block.line + (error.lineno or 1) - 1, f"this is no Python: {error.msg}"
            return
        for node in ast.walk(tree):
            for problem in self._python_node(node):
                yield block.line + node.lineno - 1, problem

    def _python_node(self, node: ast.AST) -> Iterator[str]:
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "bg":
            if problem := self._api_name(node.attr):
                yield problem
        elif isinstance(node, ast.Attribute):
            root, _, key = ast.unparse(node).partition(".")
            if root == "config" and key.partition(".")[0] in SECTIONS and (problem := key_problem(key, ("run",))):
                yield problem
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            setting = SETTING.match(node.value)
            if setting and setting[1].partition(".")[0] in SECTIONS:
                yield from self.value_problems(node.value, ("run", "warmstart", "study"), None)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("blip3o_grpo"):
            names = (f"{node.module}.{alias.name}" for alias in node.names)
            yield from (problem for name in names if (problem := self._module_problem(name)))
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") in LOADERS:
            texts = [item.value for item in node.args if isinstance(item, ast.Constant) and isinstance(item.value, str)]
            for text in (text for text in texts if not SETTING.match(text)):
                yield from self.value_problems(text, SCHEMA_OF.get(node.func.attr, ("run",)), LOADERS[node.func.attr])


def _shipped(name: str, folder: Path) -> str | None:
    known = sorted(file.stem for file in folder.glob("*.yaml"))
    return None if name in known else f"there is no shipped recipe or study {name!r}{near(name, known)}"
