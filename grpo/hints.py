"""What to write instead of an option that a command does not have: settings of a recipe are no options."""

from __future__ import annotations

import difflib
import sys
import typing
from collections.abc import Iterator, Sequence
from typing import ClassVar

import click
from pydantic import BaseModel
from rich.console import Console
from typer.core import TyperCommand

from blip3o_grpo.terminal import show


class SettingsCommand(TyperCommand):
    """A command that takes settings as `section.key=value`; an unknown option that names one is told so in one line."""

    form: ClassVar[str] = "{key}={value}"
    """How this command takes a setting."""
    schema: ClassVar[str] = "RunConfig"

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        given = list(args)
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            hint = self._hint(error, given)
            show(Console(stderr=True), ("error: ", "bold red"), f"{ctx.command_path} has no option ", hint)
            sys.exit(2)

    def _hint(self, error: click.NoSuchOption, args: Sequence[str]) -> str:
        from blip3o_grpo.configs import RunConfig, WarmstartConfig

        name = error.option_name
        if error.possibilities:
            return f"{name}; did you mean {error.possibilities[0]}?"
        schema = {"RunConfig": RunConfig, "WarmstartConfig": WarmstartConfig}[self.schema]
        key = nearest_key(name.lstrip("-").replace("-", "_"), list(setting_names(schema)))
        if key is None:
            return f"{name}; settings of a recipe are written {self.form.format(key='section.key', value='value')}"
        return f"{name}; did you mean {self.form.format(key=key, value=_value_of(name, args))}?"


class EvaluationCommand(SettingsCommand):
    """Takes settings after `--set`."""

    form = "--set {key}={value}"


class WarmstartCommand(SettingsCommand):
    """Takes the settings of a warm start."""

    schema = "WarmstartConfig"


class StudyCommand(SettingsCommand):
    """Takes its settings from the study's file only."""

    form = "`overrides: {{{key}: {value}}}` in the study's file"


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


def _value_of(name: str, args: Sequence[str]) -> str:
    """What was given for the option, as `--name=value` or `--name value`."""
    for index, arg in enumerate(args):
        option, equals, value = arg.partition("=")
        if option == name:
            following = args[index + 1 : index + 2]
            return value if equals else following[0] if following and not following[0].startswith("--") else "VALUE"
    return "VALUE"
