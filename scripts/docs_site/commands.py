"""The reference of the command line: every command with its arguments and options, from the program itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer

from blip3o_grpo.cli import app

TYPES = {"int": "whole number", "float": "number", "str": "text", "Path": "path", "bool": "flag"}


def program() -> Any:
    """`blip3o-grpo` with all its commands, as typer builds it."""
    return typer.main.get_command(app)


def build_page() -> str:
    """The page, in Markdown."""
    lines = [
        "# Commands",
        "",
        "What `blip3o-grpo COMMAND --help` says, in one page. A mistake in the arguments, in a file or in a setting is "
        "one line on standard error and exit code 2, before any model loads; the other exit codes are under "
        "[Reliability](reliability.md#exit-codes). `blip3o-grpo --version` names the version.",
    ]
    for name, command in commands(program()):
        lines += ["", f"## `{name}`", "", command.help or "", "", "```console", f"$ {_usage(name, command)}", "```"]
        lines += [line for parameter in command.params for line in _parameter(name, parameter)]
    return "\n".join(lines) + "\n"


def commands(group: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Names (`prompts geneval`) and commands, those of groups inside as well."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", command


def _usage(name: str, command: Any) -> str:
    words = [f"blip3o-grpo {name}"]
    for parameter in command.params:
        if parameter.param_type_name == "argument":
            word = parameter.name.upper() + ("..." if parameter.nargs == -1 else "")
            words.append(word if parameter.required else f"[{word}]")
        elif parameter.required:
            words.append(f"{parameter.opts[0]} {parameter.name.upper()}")
    return " ".join([*words, "[OPTIONS]"])


def _parameter(command: str, parameter: Any) -> Iterator[str]:
    is_argument = parameter.param_type_name == "argument"
    shown = parameter.name.upper() if is_argument else parameter.opts[0]
    facts = [_type(parameter)]
    facts += [f"≥ {parameter.min}"] * (parameter.min is not None) + [f"≤ {parameter.max}"] * (parameter.max is not None)
    if parameter.required:
        facts.append("required")
    elif parameter.default not in (None, False):
        facts.append(f"default `{parameter.default}`")
    if parameter.multiple or parameter.nargs == -1:
        facts.append("repeatable")
    yield from ("", f"**`{shown}`**{{ #{command.replace(' ', '-')}{'.' if is_argument else ''}{shown.lower()} }}")
    yield f":   {' · '.join(facts)}"
    if parameter.help:
        yield from ("", f"    {parameter.help}")


def _type(parameter: Any) -> str:
    annotation = parameter.type_descriptor.annotation
    name = getattr(annotation, "__name__", str(annotation))
    for inner in getattr(annotation, "__args__", ()):
        name = getattr(inner, "__name__", name)
        break
    return TYPES.get(name, name)
