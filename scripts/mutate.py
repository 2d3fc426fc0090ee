"""Mutation testing: change a module in one place, run its tests, and see whether they notice.

    python scripts/mutate.py rewards/ocr/quotes.py tests/rewards/ocr/test_quotes.py [more tests] [--json FILE]

The checkout is never changed: each changed module is imported from memory, in a fork of a process in which the tests
have passed once. Tests that start a Python of their own see the module as it is. The changes: comparisons and
arithmetic exchanged, numbers moved by one, texts altered, `and`/`or` exchanged, `not` removed, conditions fixed, slice
bounds removed, `return` of a value replaced by `return None`. Docstrings, annotations, decorators and what is raised
stay as they are.
"""

from __future__ import annotations

import argparse
import ast
import copy
import importlib.abc
import importlib.util
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
COMPARISONS = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
OPERATORS = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}


@dataclass(frozen=True)
class Mutant:
    """One change and what became of it."""

    line: int
    change: str
    source: str
    """The changed line (or statement), before and after."""
    result: str = ""
    """`noticed`, `timeout` or `survived`."""


def mutants(source: str) -> Iterator[tuple[Mutant, str]]:
    """Every change of a module's source, with the changed source."""
    tree = ast.parse(source)
    places = list(_places(tree))
    for number in range(len(places)):
        for change in range(len(_changes(places[number]))):
            fresh = copy.deepcopy(tree)
            node = list(_places(fresh))[number]
            before = ast.unparse(node)
            name, apply = _changes(node)[change]
            apply()
            yield Mutant(node.lineno, name, f"{before} -> {ast.unparse(node)}"[:200]), ast.unparse(fresh)


def _places(node: ast.AST) -> Iterator[ast.AST]:
    """Nodes that may be changed: all but docstrings, annotations, decorators, imports and what is raised."""
    match node:
        case ast.Raise() | ast.Import() | ast.ImportFrom() | ast.JoinedStr() | ast.Expr(value=ast.Constant()):
            return
        case ast.AnnAssign():
            inner = [node.value] if node.value else []
        case ast.ClassDef():
            inner = node.body
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            inner = [*node.args.defaults, *(value for value in node.args.kw_defaults if value), *node.body]
        case _:
            inner = list(ast.iter_child_nodes(node))
    yield node
    for child in inner:
        yield from _places(child)


def _changes(node: ast.AST) -> list[tuple[str, Callable[[], None]]]:
    """(name, function that applies it) for each change of one node."""
    changes: list[tuple[str, Callable[[], None]]] = []

    def add(name: str, field: str, value: Any) -> None:
        changes.append((name, lambda: setattr(node, field, value)))

    match node:
        case ast.Compare():
            for index, operator in enumerate(node.ops):
                for other in COMPARISONS[type(operator)]:
                    add("comparison", "ops", [*node.ops[:index], other(), *node.ops[index + 1 :]])
        case ast.BinOp() | ast.AugAssign() if type(node.op) in OPERATORS:
            add("arithmetic", "op", OPERATORS[type(node.op)]())
        case ast.BoolOp():
            add("boolean", "op", ast.Or() if isinstance(node.op, ast.And) else ast.And())
            for index in range(len(node.values)):
                add("operand left out", "values", node.values[:index] + node.values[index + 1 :])
        case ast.UnaryOp(op=ast.Not()):
            add("not", "operand", ast.UnaryOp(ast.Not(), node.operand))
        case ast.UnaryOp(op=ast.USub()):
            add("sign", "op", ast.UAdd())
        case ast.Constant(value=bool()):
            add("constant", "value", not node.value)
        case ast.Constant(value=int() | float()):
            add("constant", "value", node.value + 1)
            add("constant", "value", node.value - 1)
        case ast.Constant(value=str()) if node.value:
            add("constant", "value", node.value + "~")
            add("constant", "value", "")
        case ast.If() | ast.While() | ast.IfExp():
            add("condition", "test", ast.Constant(False))
            if not isinstance(node, ast.While):
                add("condition", "test", ast.Constant(True))
        case ast.Slice():
            for field in ("lower", "upper", "step"):
                if getattr(node, field) is not None:
                    add("slice bound", field, None)
        case ast.Return(value=ast.expr()) if getattr(node.value, "value", 0) is not None:
            add("return None", "value", ast.Constant(None))
        case ast.Break():
            add("break", "__class__", ast.Continue)
        case ast.Continue():
            add("continue", "__class__", ast.Break)
    return changes


def module_name(path: Path) -> str:
    """Import name of a file of the checkout, as the package's own list of folders gives it."""
    import blip3o_grpo

    for entry in Path(blip3o_grpo.__path__[0]).iterdir():
        if path.is_relative_to(entry.resolve()):
            parts = [Path(part).stem for part in (entry.name, *path.relative_to(entry.resolve()).parts)]
            return ".".join(["blip3o_grpo", *(part for part in parts if part != "__init__")])
    raise SystemExit(f"error: {path} is no module of blip3o_grpo")


class Changed(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports one module from changed source."""

    def __init__(self, name: str, path: Path, source: str) -> None:
        self.name, self.path, self.source = name, path, source

    def find_spec(self, name, path=None, target=None):
        """The spec of the changed module; None for all others."""
        return importlib.util.spec_from_loader(name, self, origin=str(self.path)) if name == self.name else None

    def exec_module(self, module) -> None:
        """Run the changed source as the module."""
        module.__file__ = str(self.path)
        exec(compile(self.source, str(self.path), "exec"), module.__dict__)


def run_tests(tests: list[str]) -> int:
    """Exit code of pytest, in this process, without output."""
    with open(os.devnull, "w") as null, redirect_stdout(null), redirect_stderr(null):
        return int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", *tests]))


def judge(changed: Changed, tests: list[str], timeout: float) -> str:
    """Run the tests in a fork in which the module is the changed one.

    Modules of other projects stay loaded; those of the checkout are loaded anew.
    """
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        signal.alarm(int(timeout) + 5)  # should this process be killed before it ends the fork
        own = [*(str(Path(test).resolve()) for test in tests), f"{ROOT}/"]
        for name, module in list(sys.modules.items()):
            file = getattr(module, "__file__", None) or ""
            if name != "__main__" and file.startswith(tuple(own)) and "site-packages" not in file:
                del sys.modules[name]
        sys.meta_path.insert(0, changed)
        code = 1
        try:
            code = run_tests(tests)
        finally:  # whatever a change breaks is noticed
            os._exit(code)
    ends = time.monotonic() + timeout
    while time.monotonic() < ends:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return "survived" if status == 0 else "noticed"
        time.sleep(0.01)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "timeout"


def main() -> None:
    """Print every change that the tests did not notice, then the score."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("module", type=Path, help="file to change, e.g. rewards/ocr/quotes.py")
    parser.add_argument("tests", nargs="+", help="test files that should notice")
    parser.add_argument("--json", type=Path, help="write all changes and their results to this file")
    parser.add_argument("--timeout", type=float, default=30, help="seconds after which a change counts as noticed")
    parser.add_argument("--lines", help="only changes of these lines, as in 40-80")
    options = parser.parse_args()
    path = options.module.resolve()
    source = path.read_text(encoding="utf-8")
    if run_tests(options.tests) != 0:
        raise SystemExit("error: the tests fail on the unchanged module")
    first, last = map(int, options.lines.split("-")) if options.lines else (1, len(source.splitlines()))
    name, results = module_name(path), []
    for mutant, code in mutants(source):
        if first <= mutant.line <= last:
            results.append(replace(mutant, result=judge(Changed(name, path, code), options.tests, options.timeout)))
            if results[-1].result == "survived":
                sys.stdout.write(f"{options.module}:{mutant.line}: {mutant.change}: {mutant.source}\n")
                sys.stdout.flush()
    noticed = sum(mutant.result != "survived" for mutant in results)
    sys.stdout.write(f"{options.module}: {noticed} of {len(results)} changes noticed\n")
    if options.json:
        options.json.write_text(json.dumps([asdict(mutant) for mutant in results], indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
