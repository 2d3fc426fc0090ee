"""What is wrong with the arguments of a command, in one line, and what to write instead."""

from __future__ import annotations

import difflib
import sys
import typing
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import typer
from pydantic import BaseModel
from rich.console import Console
from typer.core import TyperCommand, TyperGroup

from blip3o_grpo.terminal import show


class Program(TyperGroup):
    """All commands. What is wrong with their arguments is told like every other mistake, in one line."""

    def main(self, *args: Any, standalone_mode: bool = True, **extra: Any) -> Any:
        """Run a command, and end the process unless `standalone_mode` is off."""
        if not standalone_mode:
            return super().main(*args, standalone_mode=False, **extra)
        try:
            code = super().main(*args, standalone_mode=False, **extra)
        except typer.TyperException as error:
            self._show(error)
            sys.exit(error.exit_code)
        sys.exit(code if isinstance(code, int) else 0)

    def _show(self, error: typer.TyperException) -> None:
        words = " ".join(error.format_message().split())
        if not words:  # no argument at all: the help was shown
            return
        words = words[0].lower() + words[1:].rstrip(".").replace(": Input should be", ": it should be")
        context = getattr(error, "ctx", None)
        path = context.command_path if context else self.name or "blip3o-grpo"
        show(Console(stderr=True), ("error:", "bold red"), f" {path}: {words}; `{path} -h` shows what it takes")


class SettingsCommand(TyperCommand):
    """A command that takes settings as `section.key=value`; an unknown option that names one is told so in one line."""

    form: ClassVar[str] = "{key}={value}"
    """How this command takes a setting."""
    schema: ClassVar[str] = "RunConfig"

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:
        """Arguments as ever, unless one is an option that this command does not have."""
        options = {name: option for option in self.get_params(ctx) for name in option.opts if name.startswith("-")}
        rest = iter(args)
        for arg in rest:
            name, equals, value = arg.partition("=")
            if arg == "--":
                break
            if name in options and not equals and not getattr(options[name], "is_flag", False):
                next(rest, None)  # its value, whatever it looks like
            elif name.startswith("--") and name not in options:
                following = args[args.index(arg) + 1 : args.index(arg) + 2]
                given = value if equals else following[0] if following and not following[0].startswith("-") else "VALUE"
                hint = self._hint(name, given, list(options))
                show(Console(stderr=True), ("error:", "bold red"), f" {ctx.command_path} has no option {name}; {hint}")
                raise typer.Exit(2)
        return super().parse_args(ctx, args)

    def _hint(self, name: str, value: str, options: Sequence[str]) -> str:
        from blip3o_grpo.configs import RunConfig, WarmstartConfig

        schema = {"RunConfig": RunConfig, "WarmstartConfig": WarmstartConfig}[self.schema]
        key = nearest_key(name.lstrip("-").replace("-", "_"), list(setting_names(schema)))
        near = difflib.get_close_matches(name, options, n=1, cutoff=0.75)
        if near and (key is None or key.rpartition(".")[2] != name.lstrip("-")):
            return f"did you mean {near[0]}?"
        if key is None:
            return f"settings of a recipe are written {self.form.format(key='section.key', value='value')}"
        return f"did you mean {self.form.format(key=key, value=value)}?"


class EvaluationCommand(SettingsCommand):
    """Takes settings after `--set`."""

    form = "--set {key}={value}"


class WarmstartCommand(SettingsCommand):
    """Takes the settings of a warm start."""

    schema = "WarmstartConfig"


class StudyCommand(SettingsCommand):
    """Takes settings of all its trials."""


def setting_names(schema: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Dotted names of all settings, those of sections inside sections too; rewards are a list and have none."""
    for name, field in schema.model_fields.items():
        yield f"{prefix}{name}"
        for part in (field.annotation, *typing.get_args(field.annotation)):
            if isinstance(part, type) and issubclass(part, BaseModel):
                yield from setting_names(part, f"{prefix}{name}.")


def nearest_key(name: str, keys: Sequence[str]) -> str | None:
    """The key that a name means: itself, its last word, that word's initials, or the nearest to it by letters."""
    if name in keys:
        return name
    words = {key.rpartition(".")[2]: key for key in reversed(keys)}  # of two with one last word, the first
    wanted = name.rpartition(".")[2]
    if wanted in words:
        return words[wanted]
    initials = {"".join(part[0] for part in word.split("_")): key for word, key in words.items() if "_" in word}
    if wanted in initials:
        return initials[wanted]
    near = difflib.get_close_matches(wanted, list(words), n=1, cutoff=0.6)
    return words[near[0]] if near else None
