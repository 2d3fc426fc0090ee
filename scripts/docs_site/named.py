"""Does everything exist that a page names? Commands and options, keys, recipes, files, tests, names of the API, links.

Only what can be told apart from other text is looked at: code in backticks and fenced blocks of `bash`, `console`,
`yaml` and `python`. Links to other sites are checked for their form; nothing is fetched.
"""

from __future__ import annotations

import ast
import difflib
import re
import shlex
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml
from pydantic import BaseModel, TypeAdapter, ValidationError

import blip3o_grpo
from blip3o_grpo.configs.shipped import RECIPES, STUDIES
from scripts.docs_site.commands import program
from scripts.docs_site.configuration import SCHEMAS, models_in
from scripts.docs_site.markdown import Block, Page, commands_of

FOLDERS = ("configs", "docs", "examples", "grpo", "policies", "requirements", "rewards", "rollout", "scripts", "tests")
"""Of the checkout: a path in backticks that begins with one of them must exist."""
PARTS = ("configs", "policies", "rewards", "rollout")
"""Folders that are sub-packages; grpo/ is the package itself."""
PROGRAM = "blip3o-grpo"
WRITTEN = ("--out", "--json", "--results", "--work", "--output")
"""Options whose value is a file that the command writes."""
TAKES_RECIPE = {"train": RECIPES, "plan": RECIPES, "doctor": RECIPES, "warmstart": RECIPES, "ablate": STUDIES}
LOADERS = {"load_recipe": RECIPES, "load_warmstart": RECIPES, "load_study": STUDIES}
SCHEMA_OF = {"warmstart": ("warmstart",), "load_warmstart": ("warmstart",), "ablate": ("study", "run")}
SETTING = re.compile(r"([a-z_]+(?:\.[a-z0-9_]+)*)=")
KEY = re.compile(r"([a-z_]+(?:(?:\.[a-z0-9_]+|\[\]))+)(?:[=:].*)?")
PLACEHOLDER = "section.key"
SHIPPED = re.compile(r"[a-z][a-z0-9_]*")


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

    # Links

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
            return f"{path} has no heading #{parts.fragment}{_near(parts.fragment, self.pages[path].anchors)}"
        return None

    def _has_anchor(self, page: Page, fragment: str) -> bool:
        """Anchors of the API's names are made later; mkdocs itself looks at them."""
        return fragment in page.anchors or (fragment.startswith("blip3o_grpo.") and "\n::: " in page.text)

    # Code in backticks

    def _code(self, line: int, code: str) -> Iterator[tuple[int, str]]:
        words = code.split()
        if words and (words[0] in (PROGRAM, "python", "bash", "pip") or "/bin/" in words[0]):
            yield from self._command(line, code)
            return
        for word in words:
            problem = self._word(word) or (None if "(" in code or " = " in code else self._key_word(word))
            if problem:
                yield line, problem

    def _key_word(self, word: str) -> str | None:
        """A word such as `rollout.group_size=8`, whose first part is a section that a file may have."""
        key = KEY.fullmatch(word.strip("(),;"))
        if not key or key[1] == PLACEHOLDER:
            return None
        dotted = key[1].replace("[]", ".0")
        if dotted.partition(".")[0] not in self._sections or re.search(r"\.(py|yaml|jsonl?|md|html|csv|png)$", dotted):
            return None
        if self._module_file(["blip3o_grpo", *dotted.split(".")]):  # such as `rewards.images`
            return None
        return self._key(dotted, ("run", "warmstart", "study"))

    @cached_property
    def _sections(self) -> set[str]:
        return {
            name
            for schema in SCHEMAS.values()
            for name, entry in schema.model_fields.items()
            if any(models_in(entry.annotation))
        }

    def _word(self, word: str) -> str | None:
        """Paths of the checkout, names of tests, names of modules and of the API."""
        word = word.strip("(),;\"'").removeprefix("./").rstrip(".:")
        path, _, member = word.partition("::")
        if re.fullmatch(r"test_\w+", path):
            return None if path in self._tests else f"there is no test {path}{_near(path, self._tests)}"
        if re.fullmatch(r"test_\w+\.py", path):
            return None if any(self.root.glob(f"tests/**/{path}")) else f"there is no file {path} under tests/"
        if path.startswith("blip3o_grpo.") and re.fullmatch(r"[\w.]+", path):
            return self._module_problem(path)
        if re.fullmatch(r"bg\.\w+", path):
            return self._api_name(path[3:])
        if re.fullmatch(r"[\w-]+\.md", path):
            near = (self.root / path, self.root / "docs" / path)
            return None if f"docs/{path}" in self.pages or any(map(Path.is_file, near)) else f"there is no page {path}"
        if path.split("/")[0] not in FOLDERS or "/" not in path or re.search(r"[<>{}$]|\.\.\.|[A-Z]{3,}(/|$)", path):
            return None
        if not (path in self.pages or any(self.root.glob(path.rstrip("/")))):
            return f"there is no {path} in the repository{_near(path, self._siblings(path))}"
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
        return None if name in known else f"blip3o_grpo has no {name}{_near(name, known)}"

    def _module_file(self, parts: list[str]) -> Path | None:
        """Source of a module of the package, found without importing anything."""
        folder = self.root if parts[1:2] and parts[1] in PARTS else self.root / "grpo"
        module = folder.joinpath(*parts[1:])
        files = (module.with_suffix(".py") if parts[1:] else module / "__init__.py", module / "__init__.py")
        return next((file for file in files if file.is_file()), None)

    def _module_problem(self, dotted: str) -> str | None:
        """A name inside the package: its longest part that is a module must define, or import, the rest."""
        parts = dotted.split(".")
        for length in range(len(parts), 0, -1):
            file = self._module_file(parts[:length])
            if file is None:
                continue
            stub = file.with_suffix(".pyi")
            source = file.read_text(encoding="utf-8") + (stub.read_text(encoding="utf-8") if stub.is_file() else "")
            missing = length < len(parts) and not re.search(rf"\b{parts[length]}\b", source)
            return f"{'.'.join(parts[:length])} has no {parts[length]}" if missing else None
        return f"there is no module {dotted}"

    # Blocks

    def _block(self, block: Block) -> Iterator[tuple[int, str]]:
        if block.language in ("bash", "sh", "shell", "console"):
            for line, command in commands_of(block):
                yield from self._command(line, command)
        elif block.language in ("yaml", "yml"):
            yield from self._yaml(block)
        elif block.language in ("python", "py"):
            yield from self._python(block)

    # Commands

    def _command(self, line: int, text: str) -> Iterator[tuple[int, str]]:
        """A line of shell, which may be several commands."""
        lexer = shlex.shlex(text, posix=True, punctuation_chars="&|;<>")
        lexer.whitespace_split, lexer.commenters = True, "#"
        try:
            words = list(lexer)
        except ValueError as error:
            yield line, f"this is no line of shell: {error}"
            return
        for command in _split(words, "&|;"):
            for problem in self._simple_command(command):
                yield line, problem

    def _simple_command(self, words: list[str]) -> Iterator[str]:
        for index, word in enumerate(words):
            if PurePosixPath(word).name == PROGRAM:
                yield from self._program(words[index + 1 :])
                return
        script = next((word for word in words if re.fullmatch(r"(\./)?scripts/[\w/]+\.(py|sh)", word)), None)
        source = self.root / script if script else None
        for previous, word in zip(["", *words], words, strict=False):
            if previous in WRITTEN:
                continue
            option = word.partition("=")[0]
            if source and source.suffix == ".py" and source.is_file() and option.startswith("--"):
                if not _takes(source.read_text(encoding="utf-8"), option):
                    yield f"{script} has no option {option}"
            elif (extras := re.search(r"\.\[([\w,]+)\]$", word)) and (problem := self._extras(extras[1].split(","))):
                yield problem
            elif previous == "-c" and "blip3o_grpo" in word:
                yield from (problem for _, problem in self._python(Block(1, "python", word)))
            elif problem := self._word(word):
                yield problem

    def _extras(self, names: list[str]) -> str | None:
        text = (self.root / "pyproject.toml").read_text(encoding="utf-8")
        known = re.findall(r"^(\w+) = \[", text.partition("[project.optional-dependencies]")[2], re.MULTILINE)
        unknown = [name for name in names if name not in known]
        return f"pyproject.toml has no extra {unknown[0]!r}{_near(unknown[0], known)}" if unknown else None

    def _program(self, words: list[str]) -> Iterator[str]:
        """Words after `blip3o-grpo`."""
        group, path = program(), []
        while hasattr(group, "commands"):
            if not words or words[0].startswith("-") or words[0].isupper():
                options = {name for parameter in group.params for name in parameter.opts} | {"-h", "--help"}
                if words and words[0].startswith("-") and words[0] not in options:
                    yield f"{' '.join([PROGRAM, *path])} has no option {words[0]}"
                return
            path, name, words = [*path, words[0]], words[0], words[1:]
            if name not in group.commands:
                yield f"there is no command {' '.join([PROGRAM, *path])}{_near(name, group.commands)}"
                return
            group = group.commands[name]
        yield from self._arguments(group, path, words)

    def _arguments(self, command: Any, path: list[str], words: list[str]) -> Iterator[str]:
        options = {name: option for option in command.params for name in option.opts if name.startswith("-")}
        schemas, recipe_in = SCHEMA_OF.get(path[-1], ("run",)), TAKES_RECIPE.get(path[-1])
        rest = iter(words)
        for word in rest:
            name, equals, value = word.partition("=")
            if name.startswith("-") and name not in ("-h", "--help"):
                if name not in options:
                    yield f"{' '.join([PROGRAM, *path])} has no option {name}{_near(name, options)}"
                    continue
                if not options[name].is_flag:
                    value = value if equals else next(rest, "")
                    if name not in WRITTEN:
                        yield from self._value(value, schemas, RECIPES if name == "--config" else None)
                continue
            yield from self._value(word, schemas, recipe_in)
            if "=" not in word:
                recipe_in = None

    def _value(self, word: str, schemas: tuple[str, ...], recipes: Path | None) -> Iterator[str]:
        """An argument or the value of an option: a setting, the name of a shipped recipe, or a path."""
        setting = SETTING.match(word)
        if setting:
            if setting[1] != PLACEHOLDER and (problem := self._key(setting[1], schemas)):
                yield problem
        elif recipes and SHIPPED.fullmatch(word):
            if problem := _shipped(word, recipes):
                yield problem
        elif problem := self._word(word):
            yield problem

    def _key(self, dotted: str, schemas: tuple[str, ...]) -> str | None:
        if any(_walk(SCHEMAS[name], dotted.split(".")) for name in schemas):
            return None
        known = [key for name in schemas for key in all_keys(SCHEMAS[name])]
        return f"there is no key {dotted}{_near(dotted, known)}"

    # YAML

    def _yaml(self, block: Block) -> Iterator[tuple[int, str]]:
        """Keys and values of a file, or of a part of one."""
        try:
            node, values = yaml.compose(block.text, yaml.SafeLoader), yaml.safe_load(block.text)
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            yield block.line + (mark.line if mark else 0), f"this is no YAML: {getattr(error, 'problem', error)}"
            return
        if not isinstance(node, yaml.MappingNode):
            return
        keys = [key.value for key, _ in node.value]
        schema = max(SCHEMAS.values(), key=lambda each: sum(key in each.model_fields for key in keys))
        for key, value in node.value:
            problems = list(self._mapping_key(schema, key, value, block.line))
            yield from problems
            if not problems and (problem := _value_problem(schema, key.value, values[key.value])):
                yield block.line + key.start_mark.line, problem

    def _mapping_key(self, schema: Any, key: yaml.Node, value: yaml.Node, first: int) -> Iterator[tuple[int, str]]:
        if key.value == "<<":
            return
        if key.value not in schema.model_fields:
            line = first + key.start_mark.line
            yield line, f"there is no key {key.value!r} here{_near(key.value, schema.model_fields)}"
            return
        if key.value == "overrides" and isinstance(value, yaml.MappingNode):
            for setting, _ in value.value:
                if problem := self._key(setting.value, ("run",)):
                    yield first + setting.start_mark.line, problem
        inner = list(models_in(schema.model_fields[key.value].annotation))
        mappings = value.value if isinstance(value, yaml.SequenceNode) else [value]
        for mapping in (item for item in mappings if isinstance(item, yaml.MappingNode)):
            if len(inner) > 1:
                chosen = {name.value: entry.value for name, entry in mapping.value}.get("type")
                inner = [each for each in inner if chosen in each.model_fields["type"].annotation.__args__] or inner[:1]
            for name, entry in mapping.value if inner else ():
                yield from self._mapping_key(inner[0], name, entry, first)

    # Python

    def _python(self, block: Block) -> Iterator[tuple[int, str]]:
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
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("blip3o_grpo"):
            names = (f"{node.module}.{alias.name}" for alias in node.names)
            yield from (problem for name in names if (problem := self._module_problem(name)))
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") in LOADERS:
            texts = [item.value for item in node.args if isinstance(item, ast.Constant) and isinstance(item.value, str)]
            for text in texts:
                yield from self._value(text, SCHEMA_OF.get(node.func.attr, ("run",)), LOADERS[node.func.attr])


def resolve(page: str, target: str) -> str | None:
    """Path, from the root of the repository, of a link in a page; None if it leads out."""
    parts: list[str] = []
    for part in [*PurePosixPath(page).parent.parts, *PurePosixPath(target).parts]:
        if part == ".." and not parts:
            return None
        parts = parts[:-1] if part == ".." else [*parts, *([part] if part != "." else [])]
    return "/".join(parts)


def all_keys(schema: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Dotted keys of a file, those of sections inside as well; items of lists as `.0`."""
    for name, entry in schema.model_fields.items():
        yield f"{prefix}{name}"
        for section in models_in(entry.annotation):
            yield from all_keys(section, f"{prefix}{name}.")


def _walk(schema: type[BaseModel], parts: list[str]) -> bool:
    """Whether a dotted key leads somewhere; an index of a list may be there or not, and free mappings take anything."""
    entry = schema.model_fields.get(parts[0])
    if entry is None:
        return False
    rest = parts[1:]
    sections = list(models_in(entry.annotation))
    if not rest:
        return True
    if not sections:
        return "dict" in str(entry.annotation)
    rest = rest[1:] if rest[0].isdigit() else rest
    return not rest or any(_walk(section, rest) for section in sections)


def _value_problem(schema: type[BaseModel], key: str, value: Any) -> str | None:
    """What the schema says of one key's value; what is left out is no problem in a part of a file."""
    entry = schema.model_fields[key]
    try:
        TypeAdapter(entry.annotation).validate_python(value)
    except ValidationError as error:
        for mistake in error.errors():
            if mistake["type"] != "missing":
                return f"{'.'.join(map(str, (key, *mistake['loc'])))}: {mistake['msg']}"
    return None


def _takes(source: str, option: str) -> bool:
    """Whether a script has an option: named in its parser, or a parameter of its function for typer."""
    parameter = option[2:].replace("-", "_")
    return option == "--help" or f'"{option}"' in source or re.search(rf"\b{parameter}: ", source) is not None


def _shipped(name: str, folder: Path) -> str | None:
    known = sorted(file.stem for file in folder.glob("*.yaml"))
    return None if name in known else f"there is no shipped recipe or study {name!r}{_near(name, known)}"


def _near(name: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else ""


def _split(words: list[str], marks: str) -> Iterator[list[str]]:
    """The commands of a line; what is redirected stays with its command."""
    command: list[str] = []
    for word in words:
        if word and set(word) <= set(marks):
            yield command
            command = []
        else:
            command.append(word)
    yield command
