"""Keys of configurations on pages: dotted ones, and those of YAML blocks, held against the schema."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml
from pydantic import BaseModel, TypeAdapter, ValidationError

from scripts.docs_site.configuration import SCHEMAS, models_in
from scripts.docs_site.markdown import Block
from scripts.docs_site.near import near

SECTIONS = {
    name
    for schema in SCHEMAS.values()
    for name, entry in schema.model_fields.items()
    if any(models_in(entry.annotation))
}
"""First parts of dotted keys."""


def key_problem(dotted: str, schemas: tuple[str, ...]) -> str | None:
    """None where one of the schemas has the key; an index of a list may be there or not."""
    if any(_walk(SCHEMAS[name], dotted.split(".")) for name in schemas):
        return None
    known = [key for name in schemas for key in all_keys(SCHEMAS[name])]
    return f"there is no key {dotted}{near(dotted, known)}"


def yaml_problems(block: Block) -> Iterator[tuple[int, str]]:
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
        problems = list(_mapping_key(schema, key, value, block.line))
        yield from problems
        if not problems and (problem := _value_problem(schema, key.value, values[key.value])):
            yield block.line + key.start_mark.line, problem


def _mapping_key(schema: Any, key: yaml.Node, value: yaml.Node, first: int) -> Iterator[tuple[int, str]]:
    if key.value == "<<":
        return
    if key.value not in schema.model_fields:
        line = first + key.start_mark.line
        yield line, f"there is no key {key.value!r} here{near(key.value, schema.model_fields)}"
        return
    if key.value == "overrides" and isinstance(value, yaml.MappingNode):
        for setting, _ in value.value:
            if problem := key_problem(setting.value, ("run",)):
                yield first + setting.start_mark.line, problem
    inner = list(models_in(schema.model_fields[key.value].annotation))
    mappings = value.value if isinstance(value, yaml.SequenceNode) else [value]
    for mapping in (item for item in mappings if isinstance(item, yaml.MappingNode)):
        if len(inner) > 1:
            chosen = {name.value: entry.value for name, entry in mapping.value}.get("type")
            inner = [each for each in inner if chosen in each.model_fields["type"].annotation.__args__] or inner[:1]
        for name, entry in mapping.value if inner else ():
            yield from _mapping_key(inner[0], name, entry, first)


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
