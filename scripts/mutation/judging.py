"""Whether tests notice that a module was changed: each change is tried in a fork, so the checkout stays as it is.

A change is tried where the tests are collected already: functions get the changed code and constants the changed
value, and the tests run until one fails, the one that noticed a change last first. What that does not notice is tried
with the module, and all that is built on it, imported anew from the changed source. Tests that start a Python of their
own see the module as it is. Property tests draw the same examples in every fork.
"""

from __future__ import annotations

import ast
import functools
import gc
import importlib.abc
import importlib.util
import inspect
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FunctionType, ModuleType

import hypothesis
import pytest

from scripts.mutation.changes import Mutant

ROOT = Path(__file__).resolve().parents[2]
CPU_FACTOR = 4
"""A change counts as noticed once the tests use so many times the processor time they use without it, plus 2 s."""
WALL_S = 300
"""Or once they have taken so long, should they only wait."""
NOTICED, SURVIVED, TIMEOUT = "noticed", "survived", "timeout"

hypothesis.settings.register_profile(
    "mutation",
    derandomize=True,
    database=None,
    deadline=None,
    phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
    print_blob=False,
)


class TestsFail(Exception):
    """The tests fail without any change, or cannot be judged."""


@dataclass
class Judge:
    """Judges changes of one module by its tests.

    Args:
        path: file of the module.
        tests: what pytest is to run.
    """

    path: Path
    tests: Sequence[str]
    seconds: float = 0.0
    """Processor time of the tests on the unchanged module."""
    results: dict[Mutant, str] = field(default_factory=dict)

    def judge(self, found: Sequence[tuple[Mutant, str]]) -> dict[Mutant, str]:
        """`noticed`, `timeout` or `survived` for every change.

        Raises:
            TestsFail: the tests fail on the unchanged module, also where it is imported anew.
        """
        hypothesis.settings.load_profile("mutation")
        plugin = _Collected(self, found)
        with _quiet():
            status = pytest.main([*_OPTIONS, *self.tests], plugins=[plugin])
        if status != 0:
            raise TestsFail(f"{self.path}: its tests fail without any change: {' '.join(self.tests)}")
        rest = [(mutant, code) for mutant, code in found if self.results.get(mutant, SURVIVED) == SURVIVED]
        if rest and self._anew(self.path.read_text(encoding="utf-8")) != SURVIVED:
            raise TestsFail(f"{self.path}: its tests fail where it is imported anew: {' '.join(self.tests)}")
        for mutant, code in rest:
            self.results[mutant] = self._anew(code)
        return self.results

    def _anew(self, source: str) -> str:
        """Result of the tests with this source of the module."""

        def run() -> bool:
            name = module_name(self.path)
            _forget(name, self.tests)
            sys.meta_path.insert(0, Changed(name, self.path, source))
            return pytest.main([*_OPTIONS, *self.tests]) == 0

        return self.fork(run)[0]

    def fork(self, run: Callable[[], bool], told: Callable[[], int] = lambda: 0) -> tuple[str, int]:
        """Result of a function that runs tests in a fork, and a number that the fork tells of a failure."""
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            code = 1
            try:
                os.setpgid(0, 0)
                limit = int(CPU_FACTOR * self.seconds) + 2
                resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 1))
                signal.alarm(WALL_S)
                os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
                os.dup2(1, 2)
                code = 0 if run() else 1
                os.write(write, told().to_bytes(4, "big"))
            finally:  # whatever a change breaks is noticed
                os._exit(code)
        os.close(write)
        _, status = os.waitpid(child, 0)
        number = os.read(read, 4)
        os.close(read)
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGXCPU, signal.SIGKILL, signal.SIGALRM):
            return TIMEOUT, 0
        return (SURVIVED if status == 0 else NOTICED), int.from_bytes(number, "big")


_OPTIONS = ["-x", "-q", "--tb=native", "--assert=plain", "-p", "no:cacheprovider", "-p", "no:faulthandler"]


class _Collected:
    """Plug-in of pytest: tries changes of functions on the tests that were collected, once these have passed."""

    def __init__(self, judge: Judge, found: Sequence[tuple[Mutant, str]]) -> None:
        self.judge, self.found = judge, found

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Run the tests, then the tests on each changed module."""
        if session.testsfailed or not session.items:
            return True
        began = time.process_time()
        items = list(session.items)
        if not _pass(session, items)[0]:
            return True
        self.judge.seconds = time.process_time() - began
        module = sys.modules.get(module_name(self.judge.path))
        if module is None:  # its tests import it in a Python of their own, or not at all
            return True
        gc.collect()
        caches = [thing for thing in gc.get_objects() if isinstance(thing, functools._lru_cache_wrapper)]
        gc.freeze()

        def attempt(code: str) -> tuple[str, int]:
            failed = 0

            def run() -> bool:
                nonlocal failed
                for cache in caches:
                    cache.cache_clear()
                _exchange(module, code, self.judge.path)
                passed, failed = _pass(session, items)
                return passed

            return self.judge.fork(run, lambda: failed)

        if attempt(self.judge.path.read_text(encoding="utf-8"))[0] != SURVIVED:
            return True  # something depends on which object it gets: every change is tried with all imported anew
        for mutant, code in self.found:
            self.judge.results[mutant], index = attempt(code)
            if self.judge.results[mutant] == NOTICED:
                items.insert(0, items.pop(index))
        return True


def _pass(session: pytest.Session, items: Sequence[pytest.Item]) -> tuple[bool, int]:
    """Whether all tests pass, and the place of the first that does not."""
    for index, item in enumerate(items):
        following = items[index + 1] if index + 1 < len(items) else None
        item.ihook.pytest_runtest_protocol(item=item, nextitem=following)
        if session.testsfailed:
            return False, index
    return True, 0


def _exchange(module: ModuleType, source: str, path: Path) -> None:
    """Give a module's functions the code, and its constants the values, that they have in the changed source.

    Other modules have imported the same functions, and get those constants that they imported under the same name.
    """
    fresh = {"__name__": module.__name__, "__file__": str(path), "__package__": module.__package__}
    exec(compile(source, str(path), "exec"), fresh)
    users = [vars(user) for user in list(sys.modules.values()) if isinstance(user, ModuleType)]
    for name, value in fresh.items():
        old = vars(module).get(name)
        if name.startswith("__") or _same(old, value) or _exchange_code(old, value, module.__name__):
            continue
        for user in users:
            if user.get(name) is old and old is not None:
                user[name] = value
        setattr(module, name, value)


def _exchange_code(old: object, new: object, owner: str) -> bool:
    """Whether both are functions, or classes of the module; they are then made alike: code, defaults, closures."""
    old, new = _plain(old), _plain(new)
    if isinstance(new, FunctionType) and isinstance(old, FunctionType):
        old.__code__, old.__defaults__, old.__kwdefaults__ = new.__code__, new.__defaults__, new.__kwdefaults__
        for cell, filled in zip(old.__closure__ or (), new.__closure__ or (), strict=True):
            cell.cell_contents = filled.cell_contents
        return True
    if not (isinstance(new, type) and isinstance(old, type) and new.__module__ == old.__module__ == owner):
        return False
    for name, value in vars(new).items():
        before = vars(old).get(name)
        if name not in ("__dict__", "__weakref__", "__doc__") and not _exchange_code(before, value, owner):
            if name.startswith("__") or _same(before, value):
                continue
            setattr(old, name, value)
    return True


def _plain(value: object) -> object:
    """The function inside a property, a static or class method, or a cache."""
    for kind, name in ((property, "fget"), (functools.cached_property, "func")):
        if isinstance(value, kind):
            return getattr(value, name)
    if isinstance(value, staticmethod | classmethod):
        return value.__func__
    return inspect.unwrap(value) if callable(value) and not isinstance(value, type) else value


def _same(old: object, new: object) -> bool:
    try:
        return old is new or (type(old) is type(new) and bool(old == new))
    except Exception:  # arrays, for example
        return False


def _forget(changed: str, tests: Sequence[str]) -> None:
    """Have the tests, the packages, and every module that imports the changed one, however indirectly, imported anew.

    The others stay as they are, since to import them takes longer than most tests do.
    """
    places = tuple(str(Path(test).resolve()) for test in tests)
    files = {name: getattr(module, "__file__", None) or "" for name, module in sys.modules.items()}
    ours = {name: file for name, file in files.items() if file.startswith(f"{ROOT}/") and "site-packages" not in file}
    imports = {name: _imports(file) for name, file in ours.items() if name.startswith("blip3o_grpo.")}
    stale, waiting = {changed}, [changed]
    while waiting:
        target = waiting.pop()
        new = {name for name, names in imports.items() if target in names} - stale
        stale |= new
        waiting += new
    for name, file in files.items():
        test = file.startswith((f"{ROOT}/tests/", *places))
        if name in stale or test or (name in ours and file.endswith("__init__.py") and name in imports):
            del sys.modules[name]


@functools.cache
def _imports(file: str) -> frozenset[str]:
    """Modules that a file imports, at its head or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(Path(file).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
    return frozenset(found)


class Changed(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports one module from changed source."""

    def __init__(self, name: str, path: Path, source: str) -> None:
        self.name, self.path, self.source = name, path, source

    def find_spec(self, name, path=None, target=None):
        """The spec of the changed module; None for all others."""
        return importlib.util.spec_from_loader(name, self, origin=str(self.path)) if name == self.name else None

    def get_code(self, name):
        """The changed source, compiled; `runpy` asks for it."""
        return compile(self.source, str(self.path), "exec")

    def exec_module(self, module) -> None:
        """Run the changed source as the module."""
        module.__file__ = str(self.path)
        exec(self.get_code(module.__name__), module.__dict__)


class _quiet:
    """Nothing is written to the terminal meanwhile, by anybody."""

    def __enter__(self) -> None:
        sys.stdout.flush()
        self.kept = os.dup(1), os.dup(2)
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        os.close(null)

    def __exit__(self, *_: object) -> None:
        sys.stdout.flush()
        for place, kept in zip((1, 2), self.kept, strict=True):
            os.dup2(kept, place)
            os.close(kept)


def module_name(path: Path) -> str:
    """Import name of a file of the checkout, as the package's own list of folders gives it."""
    import blip3o_grpo

    for entry in Path(blip3o_grpo.__path__[0]).iterdir():
        if path.is_relative_to(entry.resolve()):
            parts = [Path(part).stem for part in (entry.name, *path.relative_to(entry.resolve()).parts)]
            return ".".join(["blip3o_grpo", *(part for part in parts if part != "__init__")])
    raise SystemExit(f"error: {path} is no module of blip3o_grpo")
