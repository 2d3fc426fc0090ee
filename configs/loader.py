"""YAML file + dotted overrides -> typed configuration; every mistake becomes one sentence that names file and key.

Relative paths written in a file (`PATH_KEYS`) are resolved against that file's folder; `run_dir`, and paths given as
overrides, against the working directory, as a shell user expects. The file of a reward `module:name` is looked for
beside the YAML file, then in the working directory. A `policy.path` of the form `ORG/NAME` that is no folder stays as
it is: the name of a repository on the hub.
Left out on purpose: includes, interpolation and environment variables.
"""

from __future__ import annotations

import difflib
import re
import typing
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from blip3o_grpo.configs.mistakes import kind_mistaken, kind_of, mistake_in_words, shown
from blip3o_grpo.configs.names import HUB_NAME, SHIPPED
from blip3o_grpo.configs.regular_files import read_bytes
from blip3o_grpo.configs.reward_files import find_reward_folders
from blip3o_grpo.configs.schema import RunConfig
from blip3o_grpo.configs.warmstart import WarmstartConfig

PATHS = "relative paths in a file start at its folder, those of overrides at the working folder"
DEFAULT_RECIPE = Path(__file__).resolve().parent / "tiny_ocr.yaml"
MAX_BYTES = 2**20
"""Of a configuration file; far more than anybody writes."""
MAX_VALUES = 20_000
PATH_KEYS = (
    ("prompts", "train"),
    ("prompts", "heldout"),
    ("policy", "path"),
    ("trainer", "text_kl", "texts"),
    ("images",),
    ("captions",),
)

Config = TypeVar("Config", bound=BaseModel)


class ConfigError(ValueError):
    """A configuration that cannot be used: names the file, the key and the nearest right value."""


class _StrictLoader(yaml.SafeLoader):
    """YAML with `1e-6` as a number (YAML 1.1 calls it a string) and repeated keys as an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        mapping = super().construct_mapping(node, deep)
        if len(mapping) < len(node.value):
            keys = [self.construct_object(key) for key, _ in node.value]
            repeated = next(key for key in keys if keys.count(key) > 1)
            raise yaml.constructor.ConstructorError(None, None, f"key {repeated!r} appears twice", node.start_mark)
        return mapping

    def get_single_node(self) -> yaml.Node | None:
        """The document, unless its aliases (`*name`) unfold to more than anybody writes, or to no end."""
        node = super().get_single_node()
        if node is not None and _num_values(node, {}) > MAX_VALUES:
            raise yaml.constructor.ConstructorError(
                None, None, f"its aliases unfold to more than {MAX_VALUES} values", node.start_mark
            )
        return node


def _num_values(node: yaml.Node, known: dict[int, int]) -> int:
    """Values below a node, each alias counted as often as it is used."""
    if isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) not in known:
        known[id(node)] = MAX_VALUES + 1  # what a node that holds itself finds
        children = node.value if isinstance(node, yaml.SequenceNode) else [part for pair in node.value for part in pair]
        known[id(node)] = 1 + sum(_num_values(child, known) for child in children)
    return known[id(node)]


_StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def load_run_config(path: str | Path, overrides: Iterable[str] = ()) -> RunConfig:
    """Read a run's YAML file and apply `section.key=value` overrides (list items by index: `rewards.0.weight=2`).

    Raises:
        ConfigError: missing or malformed file, unknown key, wrong value; the message names file, key and, where there
            is one, the nearest known key.
    """
    return _load(RunConfig, path, overrides)


def load_warmstart_config(path: str | Path, overrides: Iterable[str] = ()) -> WarmstartConfig:
    """Like `load_run_config`, for a supervised warm start."""
    return _load(WarmstartConfig, path, overrides)


def dump_config(config: BaseModel) -> str:
    """The configuration as YAML with every default written out; loading it again gives an equal object."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def differing_keys(first: BaseModel, second: BaseModel) -> list[str]:
    """Dotted keys whose values differ, in the order of the schema."""
    return _differences(first.model_dump(mode="json"), second.model_dump(mode="json"), "")


def _differences(first: Any, second: Any, prefix: str) -> list[str]:
    if isinstance(first, dict) and isinstance(second, dict):
        found = []
        for key in dict.fromkeys([*first, *second]):
            name = f"{prefix}.{key}" if prefix else str(key)
            if (key in first) != (key in second):
                found.append(name)
            elif key in first:
                found += _differences(first[key], second[key], name)
        return found
    if isinstance(first, list) and isinstance(second, list) and len(first) == len(second):
        return [
            key
            for i, (left, right) in enumerate(zip(first, second, strict=True))
            for key in _differences(left, right, f"{prefix}.{i}")
        ]
    return [] if first == second else [prefix]


def _load(schema: type[Config], path: str | Path, overrides: Iterable[str]) -> Config:
    path = expand_user(path)
    values = read_section(path)
    _resolve_paths(values, path.resolve().parent)
    for override in overrides:
        apply_override(values, override)
    _resolve_paths(values, Path.cwd())
    find_reward_folders(values.get("rewards"), path.resolve().parent)
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{path}: {describe_mistakes(schema, error)}") from None


def exists(text: str) -> bool:
    """Whether a text that may be anything (a prompt, an override) is the path of something on this machine."""
    try:
        return bool(text) and Path(text).exists()
    except (OSError, ValueError):  # too long for a path, for example
        return False


def expand_user(path: str | Path) -> Path:
    """A path with `~` and `~name` replaced by that user's folder.

    Raises:
        ConfigError: no such user.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise ConfigError(f"{path}: there is no user {str(path).partition('/')[0]!r} on this machine") from None


def whole_path(path: str | Path) -> Path:
    """A path from the root on, `~` replaced and links followed; need not exist.

    Raises:
        ConfigError: empty, no such user, links in a circle, or longer than the file system allows.
    """
    if not str(path):
        raise ConfigError("the path is empty")
    try:
        return expand_user(path).resolve()
    except RuntimeError:  # pathlib's word for ELOOP
        raise ConfigError(f"{path}: its symbolic links run in a circle") from None
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None


def read_yaml(path: Path) -> Any:
    """What a YAML file says, in plain values; aliases are followed, tags that build objects are not.

    Raises:
        ConfigError: missing, too large, not UTF-8 or not YAML; names the file, and the line where there is one.
    """
    if path.is_dir():
        raise ConfigError(f"{path}: is a folder; give a YAML file")
    try:
        data = read_bytes(path, MAX_BYTES)
    except FileNotFoundError:
        near = difflib.get_close_matches(path.name, [file.name for file in path.parent.glob("*.y*ml")], n=1)
        raise ConfigError(
            f"{path}: no such file" + (f"; did you mean {path.parent / near[0]}?" if near else "")
        ) from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    try:
        return _parse(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 (byte {error.start})") from None
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"{path}{line}: not valid YAML: {error.problem}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {error}".splitlines()[0]) from None


def _parse(text: str) -> Any:
    try:
        return yaml.load(text, Loader=_StrictLoader)  # noqa: S506 - a SafeLoader subclass
    except RecursionError:
        raise yaml.YAMLError("nested too deeply") from None
    except ValueError as error:  # a date with a month 13, a number with thousands of digits
        raise yaml.YAMLError(str(error)) from None


def read_section(path: Path) -> dict:
    """As `read_yaml`, of a file that must hold `key: value` lines."""
    values = read_yaml(path)
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected `key: value` lines at the top level, found {kind_of(values)}")
    return values


def _resolve_paths(values: dict, folder: Path) -> None:
    for *sections, key in PATH_KEYS:
        holder: Any = values
        for section in sections:
            holder = holder.get(section) if isinstance(holder, dict) else None
        if isinstance(holder, dict) and isinstance(holder.get(key), str) and holder[key] not in SHIPPED:
            path = folder / expand_user(holder[key])
            if sections != ["policy"] or path.is_dir() or not HUB_NAME.fullmatch(holder[key]):
                holder[key] = str(path)


def apply_override(values: dict, override: str) -> None:
    """Set one `section.key=value` in plain values, before they are checked.

    Raises:
        ConfigError: not of this form, not YAML, or nothing can be set there.
    """
    key, separator, text = override.partition("=") if isinstance(override, str) else ("", "", "")
    if not separator or not key:
        raise ConfigError(f"override {override!r}: expected `section.key=value`, for example `trainer.max_steps=10`")
    try:
        value = _parse(text)
    except yaml.YAMLError:
        raise ConfigError(f"override {key}=...: {shown(text)} is not a YAML value") from None
    *parents, last = key.split(".")
    holder: Any = values
    for part in parents:
        index = _index(holder, part, override)
        if isinstance(holder, dict) and holder.get(index) is None:
            holder[index] = {}
        holder = holder[index]
    holder[_index(holder, last, override)] = value


def _index(holder: Any, part: str, override: str) -> str | int:
    if isinstance(holder, dict):
        return part
    if not isinstance(holder, list):
        raise ConfigError(f"override {override!r}: nothing can be set below {kind_of(holder)} at {part!r}")
    if not (part.isascii() and part.isdigit()) or int(part) >= len(holder):
        raise ConfigError(f"override {override!r}: {part!r} is no item of a list of {len(holder)} (counted from 0)")
    return int(part)


def describe_mistakes(schema: type[BaseModel], error: ValidationError) -> str:
    """The first mistake in words, and how many more there are."""
    errors = error.errors()
    if mistaken := kind_mistaken(errors):
        return mistaken
    first: dict[str, Any] = dict(errors[0])
    if first["type"] == "plain":  # of `Section`, which sees all its keys at once
        first |= {"loc": (*first["loc"], first["ctx"]["key"]), "input": first["ctx"]["value"]}
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    variants, known = _variants_at(schema, first["loc"]), partial(_fields_at, schema, first["loc"][:-1])
    said = mistake_in_words(first | {"loc": _as_written(schema, first["loc"])}, lambda _: known())
    if first["type"] == "union_tag_not_found":
        said += f"; give type: {' or '.join(filter(None, map(_tag, variants)))}"
    return f"{said}{more}"


def _fields_at(schema: type[BaseModel], location: Sequence[str | int]) -> list[str]:
    """Known keys of the section that `location` points at."""
    return list(_variants_at(schema, location)[0].model_fields)


def _as_written(schema: type[BaseModel], location: Sequence[str | int]) -> tuple[str | int, ...]:
    """A location without the tags of variants, which pydantic puts behind the key and no file has there."""
    return tuple(
        part
        for place, part in enumerate(location)
        if len(variants := _variants_at(schema, location[:place])) < 2
        or part not in [_tag(variant) for variant in variants]
    )


def _variants_at(schema: type[BaseModel], location: Sequence[str | int]) -> list[type[BaseModel]]:
    """What the section that `location` points at can be: several where a `type` chooses; none where it is a value."""
    variants = [schema]
    for part in location:
        tagged = [variant for variant in variants if _tag(variant) == part]
        if tagged and len(variants) > 1:
            variants = tagged
        elif isinstance(part, str):
            field = variants[0].model_fields.get(part) if variants else None
            candidates = (field.annotation, *typing.get_args(field.annotation)) if field else ()
            variants = [c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)]
    return variants


def _tag(schema: type[BaseModel]) -> str | None:
    """Value of `type` that chooses this variant of a section."""
    field = schema.model_fields.get("type")
    return next(iter(typing.get_args(field.annotation)), None) if field else None
