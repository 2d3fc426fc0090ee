"""The mutation script: which changes it makes, and that tests which look are told from tests which do not."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

from scripts.mutate import module_name, mutants

ROOT = Path(__file__).resolve().parents[2]
SOURCE = '''"""Docstring."""
import os

LIMIT: int = 3


def clip(values: list[int], low: int = 0) -> list[int]:
    """Docstring."""
    if not values or low > LIMIT:
        raise ValueError("no values" + str(low))
    return [max(value + 1, low) for value in values[low:]]
'''


def test_each_change_alters_one_place_and_leaves_a_module():
    found = list(mutants(SOURCE))
    texts = [code for _, code in found]
    original = ast.unparse(ast.parse(SOURCE))
    assert all(code != original and ast.parse(code) for code in texts)
    assert len(set(texts)) == len(texts)
    assert {mutant.change for mutant, _ in found} == {
        "constant", "condition", "boolean", "operand left out", "not", "comparison", "return None", "arithmetic",
        "slice bound",
    }  # fmt: skip
    assert not any("Docstring.~" in code or "no values~" in code or "str(low)" not in code for code in texts)
    assert {mutant.line for mutant, _ in found} == {4, 7, 9, 11}


def test_a_module_is_known_by_its_import_name():
    assert module_name(ROOT / "rewards/ocr/quotes.py") == "blip3o_grpo.rewards.ocr.quotes"
    assert module_name(ROOT / "grpo/errors.py") == "blip3o_grpo.errors"
    assert module_name(ROOT / "rewards/__init__.py") == "blip3o_grpo.rewards"


def mutate(tmp_path: Path, test: str, lines: str = "17-40") -> tuple[str, list[dict]]:
    file, results = tmp_path / "test_it.py", tmp_path / "results.json"
    file.write_text(f"from blip3o_grpo.rewards.ocr.normalise import letters\n\n\ndef test_it():\n    {test}\n")
    command = [sys.executable, "scripts/mutate.py", "rewards/ocr/normalise.py", str(file), "--json", str(results)]
    done = subprocess.run([*command, "--lines", lines], cwd=ROOT, capture_output=True, text=True)
    return done.stdout + done.stderr, json.loads(results.read_text()) if results.is_file() else []


def test_changes_survive_tests_that_do_not_look(tmp_path):
    last = len((ROOT / "rewards/ocr/normalise.py").read_text().splitlines())
    lines = f"{last}-{last}"
    output, results = mutate(tmp_path, 'assert letters("A b") == "ab"', lines)
    assert {result["result"] for result in results} == {"noticed"} and f"{len(results)} of {len(results)}" in output
    output, results = mutate(tmp_path, 'letters("A b")', lines)
    assert {result["result"] for result in results} == {"survived"} and "return None" in output
    output, _ = mutate(tmp_path, "assert False", lines)
    assert "error: the tests fail on the unchanged module" in output
