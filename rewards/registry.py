"""Finds rewards by name, without importing any of them before it is asked for.

A name is looked up in the entry-point group `blip3o_grpo.rewards` of all installed packages. `module:name`, a class or
a function, is looked for in the folder that the caller names (the recipe's), then wherever Python can import from.
"""

from __future__ import annotations

import ast
import difflib
import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from blip3o_grpo.configs.regular_files import read_bytes
from blip3o_grpo.configs.reward_files import has_module
from blip3o_grpo.rewards.spec import LoadedReward, RewardSpec, describe
from blip3o_grpo.rewards.types import Reward, RewardError
from blip3o_grpo.rewards.user_modules import import_beside

GROUP = "blip3o_grpo.rewards"


@cache
def available_rewards() -> Mapping[str, EntryPoint]:
    """Registered rewards by name, nothing imported. Read once: it opens a file of every installed package."""
    return {entry.name: entry for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name)}


def find_reward(target: str, folder: str | Path | None = None) -> RewardSpec:
    """The reward behind a registered name or `module:name`; loads no model.

    Args:
        target: what a recipe says as `type`.
        folder: where a module is looked for first; None: only where Python imports from.

    Raises:
        RewardError: unknown name (with the nearest known one), a module or name that does not exist, an import that
            fails (with its cause, file and line), or something that is no reward.
    """
    if ":" not in target:
        known = available_rewards()
        if target not in known:
            raise RewardError(_unknown(target, list(known), folder))
        location, folder = known[target].value, None
    else:
        location = target
    module_name, _, attribute = location.partition(":")
    if module_name.endswith(".py") or "/" in module_name:
        raise RewardError(f"reward {target!r}: write {Path(module_name).stem}:{attribute}, a module's name and no path")
    if not module_name or not attribute:
        raise RewardError(f"reward {target!r}: write module:name, the file without .py and what it defines")
    beside = folder is not None and has_module(folder, module_name)
    module = _import(target, module_name, folder if beside else None, folder)
    found = vars(module).get(attribute)
    if found is None:
        names = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
        near = difflib.get_close_matches(attribute, names, n=1, cutoff=0.5)
        hint = f"; did you mean {module_name}:{near[0]}?" if near else ""
        raise RewardError(f"reward {target!r}: module {module_name!r} has no {attribute!r}{hint}")
    return describe(found, target, _twin(target, module_name, module) if beside else None)


def build_reward(target: str, options: Mapping[str, Any] | None = None, folder: str | Path | None = None) -> Reward:
    """Construct a reward; this is where its models load.

    Args:
        target: registered name or `module:name`.
        options: keyword arguments of its constructor or function.
        folder: as in `find_reward`.

    Raises:
        RewardError: as `find_reward`, or an option the reward does not know.
    """
    return load_reward(target, options, folder).instance


def load_reward(
    target: str, options: Mapping[str, Any] | None = None, folder: str | Path | None = None
) -> LoadedReward:
    """Like `build_reward`, with what the reward offers."""
    return find_reward(target, folder).build(options)


def declared(target: str, folder: str | Path | None = None) -> RewardSpec:
    """What a reward declares about itself; the defaults for one that only its own environment can import."""
    try:
        return find_reward(target, folder)
    except RewardError:
        return describe(_undeclared, target)


def _undeclared(images: Any, prompts: Any, metadata: Any) -> list[float | None]:
    raise RewardError("this reward cannot be imported here")


def _import(target: str, name: str, beside: str | Path | None, looked_in: str | Path | None) -> ModuleType:
    try:
        return importlib.import_module(name) if beside is None else import_beside(beside, name)
    except (Exception, SystemExit) as error:  # whatever a plug-in's module raises: its user needs its name and reason
        where = "" if looked_in is None or beside is not None else f" (nor is there a {name}.py in {looked_in})"
        missing = isinstance(error, ModuleNotFoundError) and error.name == name
        raise RewardError(
            f"reward {target!r}: importing {name!r} failed: {_cause(error)}{where if missing else ''}"
        ) from error


def _cause(error: BaseException) -> str:
    """The innermost reason of an import failure with its place, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, SyntaxError):
        place = f"{error.filename}:{error.lineno}: " if error.filename else ""  # a file with NUL bytes has none
        return f"{place}{type(error).__name__}: {error.msg}"
    reason = f"{type(error).__name__}: {error}".splitlines()[0]
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not _machinery(frame.filename)]
    return f"{frames[-1].filename}:{frames[-1].lineno}: {reason}" if frames else reason


def _machinery(filename: str) -> bool:
    """Whether a line of a traceback belongs to Python's imports, or to ours."""
    return "importlib" in filename or filename in (__file__, import_beside.__code__.co_filename)


def _twin(target: str, name: str, module: ModuleType) -> str | None:
    """That the module taken from beside the recipe has an installed namesake."""
    top = name.partition(".")[0]
    if top in sys.stdlib_module_names:  # nobody means Python's own
        return None
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    places = [spec.origin, *(spec.submodule_search_locations or ())] if spec else []
    mine = Path(inspect.getfile(module)).resolve()
    others = [Path(place) for place in places if place]
    if not others or any(mine == place.resolve() or place.resolve() in mine.parents for place in others):
        return None
    return f"reward {target!r}: {mine} is used, not the installed module {others[0]}"


def _unknown(name: str, known: list[str], folder: str | Path | None) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    mine = _defined_in(folder or Path.cwd(), name)
    if mine:
        hint = f"did you mean {mine!r}?"
    else:
        hint = f"did you mean {near[0]!r}?" if near else f"known rewards: {', '.join(known) or 'none'}"
    return f"unknown reward {name!r}; {hint} (a reward outside the registry is written module:name)"


def _defined_in(folder: str | Path, name: str) -> str | None:
    """`module:name` of a file in the folder that defines a class or function of this name, read without running it."""
    for file in sorted(Path(folder).glob("*.py")):
        try:
            body = ast.parse(read_bytes(file)).body
        except (OSError, SyntaxError, ValueError):
            continue
        if any(isinstance(part, ast.ClassDef | ast.FunctionDef) and part.name == name for part in body):
            return f"{file.stem}:{name}"
    return None
