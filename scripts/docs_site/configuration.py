"""The configuration reference: every key of a run, a warm start and a study, from the schema and its docstrings."""

from __future__ import annotations

import ast
import inspect
import textwrap
import types
import typing
from collections.abc import Iterator
from functools import cache
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from blip3o_grpo.configs.schema import RunConfig
from blip3o_grpo.configs.study import StudyConfig
from blip3o_grpo.configs.warmstart import WarmstartConfig

SCHEMAS: dict[str, type[BaseModel]] = {"run": RunConfig, "warmstart": WarmstartConfig, "study": StudyConfig}
INTRODUCTIONS = {
    "run": "A run's recipe: what `blip3o-grpo train`, `plan`, `doctor` and `eval` read.",
    "warmstart": "A warm start's recipe: what `blip3o-grpo warmstart` reads.",
    "study": "A study: what `blip3o-grpo ablate` reads.",
}
TITLES = {"run": "Run", "warmstart": "Warm start", "study": "Study"}
WORDS = {str: "text", int: "whole number", float: "number", bool: "`true` or `false`", type(None): "`null`"}
LIMITS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}


def build_page() -> str:
    """The page, in Markdown.

    Raises:
        SystemExit: a key without a docstring.
    """
    lines = [
        "# Configuration",
        "",
        "Every key, from the schema that reads the files (`configs/schema.py`, `configs/study.py`). A file names only "
        "what differs from the defaults; an unknown key is refused with the nearest known one. On the command line a "
        "key is changed with `section.key=value`, an item of a list by its index: `rewards.0.weight=2`.",
    ]
    seen: dict[type[BaseModel], str] = {}
    for name, schema in SCHEMAS.items():
        lines += ["", f"## {TITLES[name]}", "", INTRODUCTIONS[name]]
        lines += _section(schema, name, "", seen)
    return "\n".join(lines) + "\n"


def _section(schema: type[BaseModel], name: str, prefix: str, seen: dict[type[BaseModel], str]) -> Iterator[str]:
    """Keys of a section, then its sections under headings of their own; `seen` are those that have one already."""
    docs = attribute_docs(schema)
    inner: list[tuple[str, type[BaseModel]]] = []
    for key, field in schema.model_fields.items():
        dotted = f"{prefix}{key}"
        if not any(models_in(field.annotation)) and key not in docs:
            raise SystemExit(f"{schema.__name__}.{key} has no docstring; the configuration reference needs one")
        for section in models_in(field.annotation):
            if section not in seen:
                place = f"{dotted}.N" if _is_list(field.annotation) else dotted
                seen[section] = f"{name}-{place.replace('.', '-')}{_variant(section)}"
                inner.append((place, section))
        yield from ("", f"**`{dotted}`**{{ #{name}.{dotted} }}", f":   {_facts(field, seen)}")
        if key in docs:
            yield from ("", textwrap.indent(docs[key], "    "))
    for place, section in inner:
        chosen = f", type {_variant(section)[1:]}" if _variant(section) else ""
        yield from ("", f"### `{place}`{chosen} {{ #{seen[section]} }}", "", inspect.getdoc(section) or "")
        yield from _section(section, name, f"{place}.", seen)


def _variant(section: type[BaseModel]) -> str:
    """`-fsdp2` for a section that is chosen by its key `type`; else nothing."""
    chosen = section.model_fields.get("type")
    return (
        f"-{typing.get_args(chosen.annotation)[0]}"
        if chosen and typing.get_origin(chosen.annotation) is Literal
        else ""
    )


def _facts(field: FieldInfo, places: dict[type[BaseModel], str]) -> str:
    """Type, range and default in one line."""
    facts = [_type_in_words(field.annotation, places), *_limits(field)]
    if field.is_required():
        facts.append("required")
    elif not isinstance(field.default, BaseModel):
        value = field.get_default(call_default_factory=True)
        facts.append(f"default `{_as_yaml(value)}`")
    return " · ".join(facts)


def _type_in_words(annotation: Any, places: dict[type[BaseModel], str]) -> str:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_type_in_words(part, places) for part in arguments)
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin is tuple:
        return f"list of: {_type_in_words(arguments[0], places)}"
    if origin is dict:
        return f"mapping of names to {'anything' if arguments[1] is Any else _type_in_words(arguments[1], places)}"
    if annotation in places:
        return f"[section{_variant(annotation).replace('-', ' ')}](#{places[annotation]})"
    return WORDS[annotation]


def _limits(field: FieldInfo) -> Iterator[str]:
    bounds = []
    for limit in field.metadata:
        bounds += [f"{sign} {getattr(limit, name)}" for name, sign in LIMITS.items() if hasattr(limit, name)]
        if getattr(limit, "pattern", None):
            yield f"matches `{limit.pattern}`"
        if getattr(limit, "min_length", None):
            yield "not empty"
    if bounds:
        yield ", ".join(bounds).replace("2147483648", "2³¹")


def _as_yaml(value: Any) -> str:
    """As it is written in a file."""
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_as_yaml, value))}]"
    return {"None": "null", "True": "true", "False": "false"}.get(str(value), str(value) or '""')


def _is_list(annotation: Any) -> bool:
    return any(typing.get_origin(part) is tuple for part in (annotation, *typing.get_args(annotation)))


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The sections that a key may hold."""
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        yield annotation
    for part in typing.get_args(annotation):
        yield from models_in(part)


@cache
def attribute_docs(schema: type[BaseModel]) -> dict[str, str]:
    """Docstrings of a section's keys: the text that follows each in the source."""
    body = ast.parse(textwrap.dedent(inspect.getsource(schema))).body[0].body
    return {
        key.target.id: inspect.cleandoc(text.value.value)
        for key, text in zip(body, body[1:], strict=False)
        if isinstance(key, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
    }
