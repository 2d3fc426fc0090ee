"""The log-prob benchmark runs at a reduced size and reports both ways and their ratio."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts/bench_logprobs.py"


@pytest.mark.slow
def test_a_reduced_size_is_measured_both_ways(tmp_path):
    sizes = {"vocabulary": 6000, "image-tokens": 2000, "hidden": 32, "rollouts": 2, "length": 729}
    arguments = [text for name, value in sizes.items() for text in (f"--{name}", str(value))]
    command = [sys.executable, str(SCRIPT), "--device", "cpu", "--repeats", "1", "--json", str(tmp_path / "bench.json")]
    shown = subprocess.run([*command, *arguments], check=True, capture_output=True, text=True, timeout=300).stdout
    report = json.loads((tmp_path / "bench.json").read_text())
    theirs, ours = report["results"]["whole vocabulary"], report["results"]["ours"]
    assert report["speedup"] == theirs["seconds"] / ours["seconds"] > 0
    assert ours["peak_bytes"] < theirs["peak_bytes"]
    assert f"{report['speedup']:.2f} times as fast" in shown
