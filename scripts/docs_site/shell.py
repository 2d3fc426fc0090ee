"""Commands on pages: `blip3o-grpo` with its commands, options and settings, scripts with their options, extras."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from blip3o_grpo.configs.shipped import RECIPES, STUDIES
from scripts.docs_site.commands import program
from scripts.docs_site.markdown import Block
from scripts.docs_site.names import SCHEMA_OF, Names
from scripts.docs_site.near import near

PROGRAM = "blip3o-grpo"
WRITTEN = ("--out", "--json", "--results", "--work", "--output")
"""Options whose value is a file that the command writes."""
SUITE_OPTION = "--suite-option"
"""Its NAME=VALUE are a suite's own, not settings."""
TAKES_RECIPE = {"train": RECIPES, "plan": RECIPES, "doctor": RECIPES, "warmstart": RECIPES, "ablate": STUDIES}


@dataclass(frozen=True)
class Shell:
    """Looks at lines of shell."""

    names: Names

    def problems(self, text: str) -> Iterator[str]:
        """A line of shell, which may be several commands."""
        lexer = shlex.shlex(text, posix=True, punctuation_chars="&|;<>")
        lexer.whitespace_split, lexer.commenters = True, "#"
        try:
            words = list(lexer)
        except ValueError as error:
            yield f"this is no line of shell: {error}"
            return
        for command in _split(words, "&|;"):
            yield from self._simple_command(command)

    def _simple_command(self, words: list[str]) -> Iterator[str]:
        for index, word in enumerate(words):
            if PurePosixPath(word).name == PROGRAM:
                yield from self._program(words[index + 1 :])
                return
        script = next((word for word in words if re.fullmatch(r"(\./)?scripts/[\w/]+\.(py|sh)", word)), None)
        source = self.names.root / script if script else None
        for previous, word in zip(["", *words], words, strict=False):
            if previous in WRITTEN:
                continue
            option = word.partition("=")[0]
            if source and source.suffix == ".py" and source.is_file() and option.startswith("--"):
                if not _takes(source.read_text(encoding="utf-8"), option):
                    yield f"{script} has no option {option}"
            elif (extras := re.fullmatch(r"(?:\.|blip3o-grpo)\[([\w,]+)\]", word)) and (
                problem := self.names.extras_problem(extras[1].split(","))
            ):
                yield problem
            elif previous == "-c" and "blip3o_grpo" in word:
                yield from (problem for _, problem in self.names.python_problems(Block(1, "python", word)))
            elif problem := self.names.word_problem(word):
                yield problem

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
                yield f"there is no command {' '.join([PROGRAM, *path])}{near(name, group.commands)}"
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
                    yield f"{' '.join([PROGRAM, *path])} has no option {name}{near(name, options)}"
                    continue
                if not options[name].is_flag:
                    value = value if equals else next(rest, "")
                    if name not in (*WRITTEN, SUITE_OPTION):
                        yield from self.names.value_problems(value, schemas, RECIPES if name == "--config" else None)
                continue
            yield from self.names.value_problems(word, schemas, recipe_in)
            if "=" not in word:
                recipe_in = None


def _takes(source: str, option: str) -> bool:
    """Whether a script has an option: named in its parser, or a parameter of its function for typer."""
    parameter = option[2:].replace("-", "_")
    return option == "--help" or f'"{option}"' in source or re.search(rf"\b{parameter}: ", source) is not None


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
