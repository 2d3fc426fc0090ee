"""Imports a user's reward file from the folder of its recipe, under a private name.

A file named like a module of Python or of an installed package (`random.py`, `utils.py`) would shadow that module for
the whole process if its folder were put on `sys.path`. Here each folder becomes a private package instead: the file and
what lies beside it are found by each other (`import helper_beside`, also later, inside functions), and by nobody else.
"""

from __future__ import annotations

import builtins
import hashlib
import importlib
import importlib.machinery
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from blip3o_grpo.configs.reward_files import has_module

PREFIX = "blip3o_grpo_user_"


def import_beside(folder: str | Path, name: str) -> ModuleType:
    """Import `name` from `folder`.

    Raises:
        Exception: whatever the module raises.
    """
    path = str(Path(folder).resolve())
    package = PREFIX + hashlib.sha1(path.encode(), usedforsecurity=False).hexdigest()[:12]
    if package not in sys.modules:
        module = ModuleType(package, f"What lies in {path}.")
        module.__path__ = [path]
        sys.modules[package] = module
        if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
            sys.meta_path.insert(0, _Finder())
    importlib.invalidate_caches()  # the file may be newer than the last look at its folder
    return importlib.import_module(f"{package}.{name}")


class _Finder:
    """Finds modules of the private packages."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if not name.startswith(PREFIX) or path is None:
            return None
        loaders = (
            (importlib.machinery.ExtensionFileLoader, importlib.machinery.EXTENSION_SUFFIXES),
            (_Loader, importlib.machinery.SOURCE_SUFFIXES),
        )
        found = (importlib.machinery.FileFinder(entry, *loaders).find_spec(name) for entry in path)
        return next((spec for spec in found if spec), None)


class _Loader(importlib.machinery.SourceFileLoader):
    """Runs a module whose absolute imports see what lies beside the recipe first, as those of a script do."""

    def exec_module(self, module: ModuleType) -> None:
        package = module.__name__.partition(".")[0]
        module.__dict__["__builtins__"] = {**vars(builtins), "__import__": _importer(package)}
        super().exec_module(module)


def _importer(package: str) -> Any:
    """`__import__` of the modules of a private package."""
    (folder,) = sys.modules[package].__path__

    def find(
        name: str,
        globals: Mapping[str, Any] | None = None,
        locals: Mapping[str, Any] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        own = f"{package}.{name}"
        itself = globals is not None and globals.get("__name__") == own and "__path__" not in globals
        compiled = isinstance(fromlist, list)  # compiled code that the module calls imports for itself: NumPy, late
        if level or itself or compiled or not _lies_beside(folder, name):  # no file imports itself: `random.py`
            return builtins.__import__(name, globals, locals, fromlist or (), level)
        if fromlist:
            return builtins.__import__(own, globals, locals, fromlist, 0)
        importlib.import_module(own)
        return sys.modules[f"{package}.{name.partition('.')[0]}"]

    return find


def _lies_beside(folder: str, name: str) -> bool:
    """Whether an import means the folder: a file or package there, or a plain folder of a name nobody else has."""
    if has_module(folder, name):
        return True
    top = name.partition(".")[0]
    return (Path(folder) / top).is_dir() and top not in sys.modules and importlib.util.find_spec(top) is None
