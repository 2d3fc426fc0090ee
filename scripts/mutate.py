"""Mutation testing: change a module in one place, run its tests, and see whether they notice.

    python scripts/mutate.py                                       # every module of scripts/mutation/modules.toml
    python scripts/mutate.py rewards/ocr/quotes.py                 # one of them
    python scripts/mutate.py configs/loader.py --tests tests/configs/test_loader.py

Prints the changes that no test noticed and nobody has explained, then a table. Exit code 1 if a module has such a
change, or an explanation without one, or its tests notice less than 95 % of all changes.
`scripts/mutation/changes.py` says what is changed, `scripts/mutation/judging.py` how.
"""

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import os
import sys
import tomllib
from dataclasses import asdict, dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from scripts.mutation.changes import Mutant, mutants  # noqa: E402
from scripts.mutation.judging import SURVIVED, TIMEOUT, Judge, TestsFail  # noqa: E402

TABLE = ROOT / "scripts/mutation/modules.toml"
LIBRARIES = ("cv2", "matplotlib", "numpy", "PIL.Image", "pydantic", "rich.console", "scipy.stats", "typer", "yaml")
"""What most tests import anyway is imported once."""
LEAST = 0.95
"""Share of a module's changes that its tests must notice."""


@dataclass(frozen=True)
class Explained:
    """A change that makes no difference, or none that a test should hold, and why."""

    at: str
    """The changed line's text, without indentation."""
    change: str
    reason: str


@dataclass(frozen=True)
class Module:
    """An entry of the table."""

    file: str
    tests: list[str]
    torch: bool = False
    """Its tests need torch."""
    explained: list[Explained] = field(default_factory=list)


@dataclass(frozen=True)
class Outcome:
    """What came of a module's changes."""

    file: str
    results: dict[Mutant, str]
    explained: list[Mutant]
    unexplained: list[Mutant]
    unused: list[Explained]
    """Explanations of changes that are noticed, or no longer possible."""
    seconds: float
    """Processor time of the tests."""
    torch: bool
    """torch was imported against the table's word."""

    @property
    def num_noticed(self) -> int:
        """Changes that the tests noticed."""
        return sum(result != SURVIVED for result in self.results.values())

    @property
    def holds(self) -> bool:
        """Whether the tests notice enough, and what is left is explained."""
        enough = self.num_noticed >= LEAST * len(self.results)
        return enough and not (self.unexplained or self.unused or self.torch)


def read_table(path: Path = TABLE) -> dict[str, Module]:
    """Modules by file."""
    entries = tomllib.loads(path.read_text(encoding="utf-8"))["module"]
    modules = [
        Module(**{**entry, "explained": [Explained(**given) for given in entry.get("explained", [])]})
        for entry in entries
    ]
    return {module.file: module for module in modules}


def measure(module: Module, first: int = 1, last: int = sys.maxsize) -> Outcome:
    """Try the changes of a module between two lines."""
    path = (ROOT / module.file).resolve()
    found = [
        (mutant, code) for mutant, code in mutants(path.read_text(encoding="utf-8")) if first <= mutant.line <= last
    ]
    judge = Judge(path, module.tests)
    results = judge.judge(found)
    survivors = [mutant for mutant, _ in found if results[mutant] == SURVIVED]
    given = {(one.at, one.change): one for one in module.explained}
    explained = [mutant for mutant in survivors if (mutant.at, mutant.change) in given]
    used = {(mutant.at, mutant.change) for mutant in explained}
    return Outcome(
        module.file,
        results,
        explained,
        [mutant for mutant in survivors if mutant not in explained],
        [one for key, one in given.items() if key not in used] if (first, last) == (1, sys.maxsize) else [],
        judge.seconds,
        "torch" in sys.modules and not module.torch,
    )


def report(outcome: Outcome) -> str:
    """What is wrong, change by change."""
    file = outcome.file
    lines = [f"{file}:{mutant}" for mutant in outcome.unexplained]
    lines += [f"{file}: explained, but noticed or not possible: {one.at}: {one.change}" for one in outcome.unused]
    if outcome.torch:
        lines.append(f"{file}: its tests import torch")
    return "".join(f"{line}\n" for line in lines)


def row(outcome: Outcome) -> str:
    """A line of the table."""
    total, noticed = len(outcome.results), outcome.num_noticed
    late = sum(result == TIMEOUT for result in outcome.results.values())
    cells = (f"`{outcome.file}`", total, noticed, late, f"{noticed / max(total, 1):.1%}", len(outcome.explained),
             len(outcome.unexplained), f"{outcome.seconds:.1f}")  # fmt: skip
    return f"| {' | '.join(map(str, cells))} |\n"


HEAD = (
    "| module | changes | noticed | of them too slow | share | explained | unexplained | tests, CPU s |\n"
    "|---|---|---|---|---|---|---|---|\n"
)


def main() -> int:
    """Measure the modules that were asked for; 1 if one of them does not hold."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("modules", nargs="*", help="files of the table; none: all of them")
    parser.add_argument("--tests", nargs="+", help="test files of a module that is not in the table")
    parser.add_argument("--json", type=Path, help="write all changes and their results to this file")
    parser.add_argument("--lines", help="only changes of these lines, as in 40-80")
    options = parser.parse_args()
    table = read_table()
    unknown = [
        file for file in options.modules if file not in table and not (options.tests and len(options.modules) == 1)
    ]
    if unknown:
        parser.error(f"{unknown[0]} is not in {TABLE.relative_to(ROOT)}; give its --tests")
    chosen = options.modules or list(table)
    if len(chosen) > 1:
        return _each([table[file] for file in chosen])
    module = table.get(chosen[0], Module(chosen[0], []))
    if options.tests:
        module = Module(module.file, options.tests, True, module.explained)
    first, last = map(int, options.lines.split("-")) if options.lines else (1, sys.maxsize)
    try:
        outcome = measure(module, first, last)
    except TestsFail as error:
        raise SystemExit(f"error: {error}") from error
    sys.stdout.write(report(outcome) + HEAD + row(outcome))
    if options.json:
        entries = [{**asdict(mutant), "result": result} for mutant, result in outcome.results.items()]
        options.json.write_text(json.dumps(entries, indent=1, ensure_ascii=False), encoding="utf-8")
    return 0 if outcome.holds else 1


def _each(modules: list[Module]) -> int:
    """Measure modules in forks, so that none sees what another has imported."""
    for name in LIBRARIES:
        importlib.import_module(name)
    status, rows = 0, []
    with multiprocessing.get_context("fork").Pool(1, maxtasksperchild=1) as pool:
        for text, line, holds in pool.imap(_measured, modules, chunksize=1):
            sys.stdout.write(text + line)
            sys.stdout.flush()
            rows.append(line)
            status |= not holds
    sys.stdout.write("\n" + HEAD + "".join(rows))
    return status


def _measured(module: Module) -> tuple[str, str, bool]:
    try:
        outcome = measure(module)
    except TestsFail as error:
        return f"error: {error}\n", "", False
    return report(outcome), row(outcome), outcome.holds


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
