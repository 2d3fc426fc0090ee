"""Mutation testing: change a module in one place, run its tests, and see whether they notice.

    python scripts/mutate.py rewards/ocr/quotes.py tests/rewards/ocr/test_quotes.py [more tests] [--json FILE]

Works in a temporary copy of the package and the tests, so the checkout is never changed. The changes: comparisons and
arithmetic exchanged, numbers moved by one, texts altered, `and`/`or` exchanged, `not` removed, conditions fixed, slice
bounds removed, `return` of a value replaced by `return None`, statements left out. Docstrings, annotations and messages
of exceptions stay as they are. One test process takes all changes of a share in turn, each in a fork, which keeps a
change to a fraction of a second; a change that outlives `--timeout` seconds counts as noticed.
"""

from __future__ import annotations

import argparse
import ast
import copy
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

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


def _places(tree: ast.AST) -> Iterator[ast.AST]:
    """Nodes that may be changed: all but docstrings, annotations, imports and what is raised."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Raise | ast.Import | ast.ImportFrom | ast.JoinedStr):
            continue
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            continue
        yield node
        if isinstance(node, ast.AnnAssign):
            yield from _places(ast.Module([ast.Expr(node.value)] if node.value else [], []))
            continue
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            defaults = [value for value in (*node.args.defaults, *node.args.kw_defaults) if value]
            yield from _places(ast.Module([ast.Return(ast.Tuple(defaults)), *node.body], []))
            continue
        yield from _places(node)


def _changes(node: ast.AST) -> list:
    """(name, function that applies it) for each change of one node."""
    if not hasattr(node, "lineno"):
        return []
    changes = []

    def add(name: str, apply) -> None:
        changes.append((name, apply))

    def put(field: str, value, index: int | None = None):
        def apply() -> None:
            if index is None:
                setattr(node, field, value)
            else:
                getattr(node, field)[index] = value

        return apply

    match node:
        case ast.Compare():
            for index, operator in enumerate(node.ops):
                for other in COMPARISONS[type(operator)]:
                    add("comparison", put("ops", other(), index))
        case ast.BinOp() | ast.AugAssign() if type(node.op) in OPERATORS:
            add("arithmetic", put("op", OPERATORS[type(node.op)]()))
        case ast.BoolOp():
            add("boolean", put("op", ast.Or() if isinstance(node.op, ast.And) else ast.And()))
            for index in range(len(node.values)):
                add("operand left out", put("values", node.values[:index] + node.values[index + 1 :]))
        case ast.UnaryOp(op=ast.Not()):
            add("not", lambda: (put("op", ast.Not())(), put("operand", ast.UnaryOp(ast.Not(), node.operand))()))
        case ast.UnaryOp(op=ast.USub()):
            add("sign", put("op", ast.UAdd()))
        case ast.Constant(value=bool()):
            add("constant", put("value", not node.value))
        case ast.Constant(value=int() | float()):
            add("constant", put("value", node.value + 1))
            add("constant", put("value", node.value - 1))
        case ast.Constant(value=str()) if node.value:
            add("constant", put("value", node.value + "~"))
            add("constant", put("value", ""))
        case ast.If() | ast.While() | ast.IfExp():
            add("condition", put("test", ast.Constant(False)))
            if not isinstance(node, ast.While):
                add("condition", put("test", ast.Constant(True)))
        case ast.Slice():
            for field in ("lower", "upper", "step"):
                if getattr(node, field) is not None:
                    add("slice bound", put(field, None))
        case ast.Return(value=ast.expr()) if getattr(node.value, "value", 0) is not None:
            add("return None", put("value", ast.Constant(None)))
        case ast.Break():
            add("break", lambda: setattr(node, "__class__", ast.Continue))
        case ast.Continue():
            add("continue", lambda: setattr(node, "__class__", ast.Break))
    return changes


def prepare(module: Path, tests: list[Path], folder: Path) -> None:
    """Lay out a copy in which the module may be changed: the package and the tests, nothing else."""
    for top in ("configs", "grpo", "policies", "rewards", "rollout", "tests", "scripts", "pyproject.toml", "examples"):
        source = ROOT / top
        if source.is_dir():
            shutil.copytree(source, folder / top, ignore=shutil.ignore_patterns("__pycache__"), symlinks=True)
        else:
            shutil.copyfile(source, folder / top)
    package = folder / "import" / "blip3o_grpo"
    editable = Path(__import__("blip3o_grpo").__path__[0])
    package.mkdir(parents=True)
    for entry in editable.iterdir():  # links to the folders of the checkout become links to those of the copy
        if entry.name != "__pycache__":
            (package / entry.name).symlink_to(folder / entry.resolve().relative_to(ROOT))


def judge(module: Path, tests: list[Path], code: str, timeout: float) -> str:
    """Run the tests in a fork in which the module is the changed code."""
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        module.write_text(code, encoding="utf-8")
        import pytest

        os._exit(int(pytest.main(["-q", "-x", "-p", "no:cacheprovider", *map(str, tests)])))
    ends = time.monotonic() + timeout
    while time.monotonic() < ends:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return "survived" if os.waitstatus_to_exitcode(status) == 0 else "noticed"
        time.sleep(0.01)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "timeout"
