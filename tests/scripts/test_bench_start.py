"""CPU seconds until the first step: summed over all processes, ended ones too, and a run that makes none is told."""

from __future__ import annotations

import sys

import pytest

from scripts.bench_start import OTHERS, measure

BUSY = "import time\nwhile time.process_time() < 0.6: pass\n"
PROGRAM = f"""
import pathlib, subprocess, sys, time
subprocess.run([sys.executable, "-c", {BUSY!r} + "time.sleep(0.5)"])  # is gone when the first line is there
pathlib.Path(sys.argv[1]).write_text("{{}}\\n")
time.sleep(600)
"""


def test_processes_that_have_ended_count(tmp_path):
    spent = measure([sys.executable, "-c", PROGRAM, str(tmp_path / "m")], tmp_path / "m", tmp_path / "log")
    assert spent[OTHERS] > 0.5 and spent["all"] == pytest.approx(spent[OTHERS] + spent["driver"])
    assert spent["wall"] > 1


def test_a_run_without_a_step_shows_its_last_words(tmp_path):
    with pytest.raises(SystemExit, match=r"(?s)error: no step was made within .*no such recipe"):
        measure([sys.executable, "-c", "print('no such recipe')"], tmp_path / "m", tmp_path / "log")
