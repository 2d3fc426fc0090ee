"""The GPU benchmark runs at a tiny size on a CPU, on a machine that has neither Ray, vLLM, TRL nor pydantic."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts/bench_gpu.py"
ABSENT = ("ray", "vllm", "trl", "pydantic", "omegaconf", "paddleocr", "datasets")
RUN = f"""
import runpy, sys
for name in {ABSENT}:
    sys.modules[name] = None  # importing it raises ImportError
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
TINY = [
    "--dry-run",
    "--scale",
    "0.02",
    "--prompts",
    "2",
    "--group-size",
    "2",
    "--images-per-decode",
    "4",
    "--steps",
    "2",
]


def test_a_dry_run_measures_every_stage_against_the_released_way(tmp_path):
    file = tmp_path / "bench.json"
    command = [
        sys.executable,
        "-c",
        RUN,
        str(SCRIPT),
        *TINY,
        "--few-steps",
        "1",
        "--rollouts",
        "1",
        "--json",
        str(file),
    ]
    shown = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300).stdout
    report = json.loads(file.read_text())
    stages = report["stages"]
    assert list(stages) == [
        "sample",
        "prefill",
        "decode",
        "log-probs + backward",
        "log-probs + backward, with the AR part",
    ]
    for ways in stages.values():
        first, *others = ways.values()
        assert first["speedup"] == 1 and others
        assert all(row["images_per_second"] > 0 for row in ways.values())
    theirs, ours = stages["log-probs + backward"].values()
    assert ours["peak_bytes"] > 0 and theirs["peak_bytes"] > 0
    assert len(report["goals"]) == 3 and {"name", "goal", "measured", "met"} == report["goals"][0].keys()
    assert "says nothing about the released model on a GPU" in shown
    assert shown.count("not judged in a dry run") == 3
