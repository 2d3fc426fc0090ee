"""The changes of mutation testing: every way in which a module's source is altered in one place.

Comparisons and arithmetic exchanged, numbers moved by one, texts altered, `and`/`or` exchanged, `not` removed,
conditions fixed, slice bounds removed, `return` of a value replaced by `return None`. Left as they are: docstrings,
annotations and `Literal[...]` that has a name, decorators, f-strings and what is raised, so most of the wording of
messages, and `strict=True` of `zip`, which like `assert` says what is never otherwise.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

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
    """One change of a module."""

    number: int
    """The how many-th of the module's changes it is."""
    line: int
    at: str
    """The line's text, without indentation."""
    kind: str
    change: str
    """The changed expression or statement, before and after."""

    def __str__(self) -> str:
        return f"{self.line}: {self.kind}: {self.change}"


def mutants(source: str) -> Iterator[tuple[Mutant, str]]:
    """Every change of a module's source, with the changed source."""
    tree, lines = ast.parse(source), source.splitlines()
    number = 0
    for index, place in enumerate(_places(tree)):
        for change in range(len(_changes(place))):
            fresh = copy.deepcopy(tree)
            node = list(_places(fresh))[index]
            before = _head(node)
            kind, apply = _changes(node)[change]
            apply()
            number, at = number + 1, lines[node.lineno - 1].strip()
            yield Mutant(number, node.lineno, at, kind, f"{before} -> {_head(node)}"), ast.unparse(fresh)


def _head(node: ast.AST) -> str:
    """First line of an expression or a statement."""
    return ast.unparse(node).splitlines()[0]


def _places(node: ast.AST) -> Iterator[ast.AST]:
    """Nodes that may be changed, as the module's docstring says."""
    match node:
        case ast.Raise() | ast.Import() | ast.ImportFrom() | ast.JoinedStr() | ast.Expr(value=ast.Constant()):
            return
        case ast.keyword(arg="strict") | ast.Subscript(value=ast.Name(id="Literal")):
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
