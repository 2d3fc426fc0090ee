"""Mutation testing: which changes it makes, that tests which look are told from tests which do not, and its table."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.mutate import Explained, Module, Outcome, read_table, report
from scripts.mutation.changes import Mutant, mutants
from scripts.mutation.judging import NOTICED, SURVIVED, module_name

ROOT = Path(__file__).resolve().parents[2]
SOURCE = '''"""Docstring."""
import os

LIMIT: int = 3
Kind = Literal["low", "high"]


def clip(values: list[int], low: int = 0) -> list[int]:
    """Docstring."""
    if not values or low > LIMIT:
        raise ValueError("no values" + str(low))
    return [max(value + 1, last) for value, last in zip(values[low:], values, strict=True)]
'''


def test_each_change_alters_one_place_and_leaves_a_module():
    found = list(mutants(SOURCE))
    texts = [code for _, code in found]
    original = ast.unparse(ast.parse(SOURCE))
    assert all(code != original and ast.parse(code) for code in texts)
    assert len(set(texts)) == len(texts) == len({mutant for mutant, _ in found})
    assert {mutant.kind for mutant, _ in found} == {
        "constant", "condition", "boolean", "operand left out", "not", "comparison", "return None", "arithmetic",
        "slice bound",
    }  # fmt: skip
    assert not any("Docstring.~" in code or "no values~" in code or "str(low)" not in code for code in texts)
    assert not any("strict=False" in code for code in texts)
    assert {mutant.line for mutant, _ in found} == {4, 8, 10, 12}
    assert {mutant.at for mutant, _ in found if mutant.line == 4} == {"LIMIT: int = 3"}


def test_a_module_is_known_by_its_import_name():
    assert module_name(ROOT / "rewards/ocr/quotes.py") == "blip3o_grpo.rewards.ocr.quotes"
    assert module_name(ROOT / "grpo/errors.py") == "blip3o_grpo.errors"
    assert module_name(ROOT / "rewards/__init__.py") == "blip3o_grpo.rewards"


def run(*arguments: str) -> tuple[int, str]:
    command = [sys.executable, "scripts/mutate.py", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def mutate(tmp_path: Path, test: str, lines: str) -> tuple[int, str, list[dict]]:
    file, results = tmp_path / "test_it.py", tmp_path / "results.json"
    imports = (
        "import blip3o_grpo.rewards.ocr.normalise as module\nfrom blip3o_grpo.rewards.ocr.normalise import letters"
    )
    file.write_text(f"{imports}\n\n\ndef test_it():\n    {test}\n")
    status, output = run("rewards/ocr/normalise.py", "--tests", str(file), "--json", str(results), "--lines", lines)
    return status, output, json.loads(results.read_text()) if results.is_file() else []


def test_changes_survive_tests_that_do_not_look(tmp_path):
    last = len((ROOT / "rewards/ocr/normalise.py").read_text().splitlines())
    lines = f"{last}-{last}"
    status, _, results = mutate(tmp_path, 'assert letters("A b") == "ab"', lines)
    assert status == 0 and {result["result"] for result in results} == {"noticed"}
    status, output, results = mutate(tmp_path, 'letters("A b")', lines)
    assert status == 1 and {result["result"] for result in results} == {"survived"} and "return None" in output
    status, output, _ = mutate(tmp_path, "assert False", lines)
    assert status == 1 and "error: " in output and "tests fail without any change" in output


MUTANT = Mutant(1, 7, "return x + 1", "constant", "1 -> 2")


@pytest.mark.parametrize(
    ("explained", "unexplained", "unused", "torch", "num_noticed", "holds"),
    [
        ([], [], [], False, 100, True),
        ([MUTANT] * 5, [], [], False, 95, True),
        ([MUTANT] * 6, [], [], False, 94, False),
        ([], [MUTANT], [], False, 99, False),
        ([], [], [Explained("return x", "x -> y", "the same")], False, 100, False),
        ([], [], [], True, 100, False),
    ],
)
def test_a_module_holds_if_its_tests_notice_enough_and_the_rest_is_explained(
    explained, unexplained, unused, torch, num_noticed, holds
):
    results = {
        Mutant(number, 7, "return x + 1", "constant", "1 -> 2"): NOTICED if number < num_noticed else SURVIVED
        for number in range(100)
    }
    outcome = Outcome("a.py", results, explained, unexplained, unused, 1.0, torch)
    assert outcome.num_noticed == num_noticed and outcome.holds is holds
    assert bool(report(outcome)) is bool(unexplained or unused or torch)


def test_the_table_names_modules_tests_and_lines_that_are_there():
    table = read_table()
    for module in table.values():
        lines = {line.strip() for line in (ROOT / module.file).read_text().splitlines()}
        assert module.tests and all((ROOT / test).is_file() for test in module.tests)
        assert all(one.at in lines and " -> " in one.change and one.reason for one in module.explained), module.file


def test_tests_of_pure_modules_are_collected_without_torch():
    """What each of them imports while it runs, `scripts/mutate.py` looks at."""
    files = sorted({test for module in read_table().values() if not module.torch for test in module.tests})
    code = "import sys, pytest; assert pytest.main(sys.argv[1:]) == 0; assert 'torch' not in sys.modules"
    command = [sys.executable, "-c", code, "--collect-only", "-q", "-p", "no:cacheprovider", *files]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": "."})
    assert done.returncode == 0, done.stdout[-500:] + done.stderr[-2000:]


@pytest.mark.slow
@pytest.mark.parametrize(
    "file", ["rewards/geneval/possible.py", "grpo/training/guard_rules.py", "grpo/run/retention.py"]
)
def test_small_modules_hold(file):
    """That the table and the tests are still right; all modules take half an hour."""
    assert isinstance(read_table()[file], Module)
    status, output = run(file)
    assert status == 0, output
