"""The whole build of the tiny policy runs at smoke size, and a second call repeats no finished stage."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from blip3o_grpo.policies import BLIP3oNext
from blip3o_grpo.policies.tiny_world.ladder import OPPOSITES, SWAPS, climb, swapped_prompt, word_swap
from scripts.tiny_build.measure import ocr_reader
from scripts.tiny_build.patches import draw

SCRIPT = Path(__file__).parents[2] / "scripts" / "build_tiny_policy.py"


def test_smoke_build_writes_a_policy_and_its_ladder(tmp_path):
    command = [sys.executable, str(SCRIPT), "--smoke", "--threads", "1", "--work", str(tmp_path / "work")]
    command += ["--output", str(tmp_path / "policy")]
    subprocess.run(command, check=True, timeout=300)
    BLIP3oNext.from_pretrained(tmp_path / "policy", parts=("ar", "head", "vision"))
    record = json.loads((tmp_path / "policy" / "ladder.json").read_text())
    ladder = record["ladder"]
    assert {"drawn", "autoencoder", "tokens", "leverage", "sampled", "spread"} == set(ladder["signs"])
    assert set(record["reading"]) == {"word_swap", "strict"} and {"tools", "ar", "bound", "noisy"} <= set(
        record["seconds"]
    )
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
    record = json.loads((SCRIPT.parents[1] / "policies" / "tiny" / "ladder.json").read_text())
    ladder, reading = record["ladder"], record["reading"]
    for kind in ("signs", "shapes"):
        assert ladder[kind]["autoencoder"] >= 0.98
        assert ladder[kind]["tokens"] >= 0.95
        assert ladder[kind]["leverage"] >= 0.95
        assert ladder[kind]["spread"] >= 0.7
    assert 0.45 <= ladder["signs"]["sampled"] <= 0.6
    assert all(swap["nats"] >= 1 and swap["n"] == 256 for swap in reading["word_swap"].values())
    assert 0.70 <= reading["strict"].pop("overall") <= 0.85
    assert all(0.45 <= share <= 0.95 for share in reading["strict"].values()) and len(reading["strict"]) == 6


def test_the_shipped_weights_read_relations_and_whose_colour_is_whose():
    """The word swap on fewer scenes than the ladder's."""
    policy = BLIP3oNext.from_pretrained("tiny", parts=("ar", "vision"))
    for tag in SWAPS:
        nats = word_swap(policy, draw(48, 33, heldout=True, tag=tag))
        assert nats.mean() > 1 and (nats > 0).mean() > 0.85, tag


def test_a_prompts_twin_asks_for_the_opposite():
    for scene in draw(20, 3, tag="color_attr"):
        twin = swapped_prompt(scene)
        assert twin != scene.prompt and sorted(twin.split()) == sorted(scene.prompt.split())
    for scene in draw(20, 3, tag="position"):
        relation = next(each for each in OPPOSITES if f" {each} " in scene.prompt)
        assert swapped_prompt(scene).replace(OPPOSITES[relation], relation) == scene.prompt != swapped_prompt(scene)
    with pytest.raises(ValueError, match="'counting' has no twin"):
        swapped_prompt(draw(1, 3, tag="counting")[0])


def test_captions_name_two_shapes_in_reading_order():
    for tag in ("two_object", "color_attr"):
        for scene in draw(50, 4, tag=tag):
            here, there = (shape.cell[::-1] for shape in scene.shapes)
            assert here < there
