"""The whole build of the tiny policy runs at smoke size, and a second call repeats no finished stage."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from blip3o_grpo.policies import BLIP3oNext
from blip3o_grpo.policies.tiny_world.ladder import climb
from scripts.tiny_build.measure import ocr_reader
from scripts.tiny_build.patches import draw

SCRIPT = Path(__file__).parents[2] / "scripts" / "build_tiny_policy.py"


def test_smoke_build_writes_a_policy_and_its_ladder(tmp_path):
    command = [sys.executable, str(SCRIPT), "--smoke", "--threads", "1", "--work", str(tmp_path / "work")]
    command += ["--output", str(tmp_path / "policy")]
    subprocess.run(command, check=True, timeout=300)
    BLIP3oNext.from_pretrained(tmp_path / "policy", parts=("ar", "head", "vision"))
    ladder = json.loads((tmp_path / "policy" / "ladder.json").read_text())["ladder"]
    assert {"drawn", "autoencoder", "tokens", "leverage", "sampled", "spread"} == set(ladder["signs"])
    assert ladder["signs"]["drawn"] > 0.95 and ladder["shapes"]["drawn"] == 1.0
    first = (tmp_path / "work" / "head" / "metrics.jsonl").read_text()
    subprocess.run(command, check=True, timeout=300)
    assert (tmp_path / "work" / "head" / "metrics.jsonl").read_text() == first


def test_the_shipped_weights_paint_what_their_tokens_say():
    """A short climb on the weights themselves; the recorded ladder has four times as many scenes."""
    policy = BLIP3oNext.from_pretrained("tiny", parts=("ar", "head", "vision"))
    rungs, _ = climb(policy, draw(24, 31, heldout=True, tag="sign"), ocr_reader, ocr_reader, num_groups=6, num_steps=4)
    assert min(rungs["autoencoder"], rungs["tokens"], rungs["leverage"]) >= 0.95
    assert 0.3 <= rungs["sampled"] <= 0.8 and rungs["spread"] >= 0.7


def test_the_shipped_policy_meets_its_ladder():
    ladder = json.loads((SCRIPT.parents[1] / "policies" / "tiny" / "ladder.json").read_text())["ladder"]
    for kind in ("signs", "shapes"):
        assert ladder[kind]["autoencoder"] >= 0.98
        assert ladder[kind]["tokens"] >= 0.95
        assert ladder[kind]["leverage"] >= 0.8
        assert 0.35 <= ladder[kind]["sampled"] <= 0.75
        assert ladder[kind]["spread"] >= 0.7
