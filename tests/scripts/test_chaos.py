"""The chaos test's plan is random but repeatable, its comparison sees every difference, and a run does survive."""

import json
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from blip3o_grpo.rollout import Completion, Prompt, Rollout, RolloutBatch, RolloutGroup, RolloutRecorder
from scripts.chaos import TITLES, plan_kills
from scripts.compare_runs import compare_runs

ROOT = Path(__file__).parents[2]


def test_every_kind_gets_its_share_at_random_moments_before_the_last_step():
    kills = plan_kills(30, num_steps=40, step_seconds=3.0, seed=7)
    assert set(Counter(kill.kind for kill in kills).values()) == {30 // len(TITLES)}
    assert [kill.step for kill in kills] == sorted(kill.step for kill in kills) and kills[-1].step < 36
    assert all(0 <= kill.delay_s <= 3 for kill in kills)
    assert kills == plan_kills(30, 40, 3.0, seed=7) != plan_kills(30, 40, 3.0, seed=8)


@pytest.fixture
def runs(tmp_path):
    """Two equal run folders of two steps, apart from times and faults."""
    for name, seconds in (("expected", 1.0), ("found", 9.0)):
        run = tmp_path / name
        (run / "evaluations").mkdir(parents=True)
        (run / "evaluations" / "after.json").write_text(json.dumps({"means": {"ocr": 0.5}, "per_prompt": {"a": None}}))
        for step in range(2):
            with (run / "metrics.jsonl").open("a") as file:
                metrics = {"step": step + 1, "reward/mean": 0.25, "time/step": seconds, "faults/retries": seconds}
                file.write(json.dumps(metrics) + "\n")
            RolloutRecorder(run, all_images=True).record(step, _batch(step))
    return tmp_path / "expected", tmp_path / "found"


def _batch(step):
    def rollout(member):
        completion = Completion(np.zeros(4, np.int32), np.full(4, -0.5, np.float32), step, 100 * step + member)
        return Rollout(completion, np.full((4, 4, 3), member, np.uint8), {"ocr": 0.1 * member})

    groups = tuple(RolloutGroup(Prompt(name, name), [1], (rollout(0), rollout(1))) for name in "ab")
    return RolloutBatch(groups, {})


def test_equal_runs_are_equal(runs):
    comparisons = compare_runs(*runs)
    assert not [found for found in comparisons if found.differences]
    assert {found.what: found.compared for found in comparisons}[
        "pictures"
    ] == 16  # 8 images; best and worst of 4 groups


def edit(file, old, new):
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new, 1))


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda run: edit(run / "metrics.jsonl", "0.25", "0.2503"), "metrics"),
        (lambda run: edit(run / "metrics.jsonl", '"step": 2', '"step": 3'), "metrics"),
        (lambda run: edit(run / "evaluations/after.json", "0.5", "0.51"), "held-out scores"),
        (lambda run: (run / "evaluations/after.json").unlink(), "held-out scores"),
        (lambda run: shutil.rmtree(run / "rollouts/step-000001"), "rollouts lost or doubled"),
        (
            lambda run: edit(run / "rollouts/step-000001/rollouts.jsonl", '"prompt_id": "b"', '"prompt_id": "a"'),
            "doubled",
        ),
        (lambda run: edit(run / "rollouts/step-000001/rollouts.jsonl", '"seed": 101', '"seed": 102'), "draws"),
        (lambda run: edit(run / "rollouts/step-000000/rollouts.jsonl", '"ocr": 0.1', '"ocr": 0.2'), "scores"),
        (lambda run: shutil.copy(*(run / f"rollouts/step-000000/00{group}-1.png" for group in (0, 1))), None),
        (lambda run: Image.new("RGB", (4, 4), "red").save(run / "rollouts/step-000000/000-0.png"), "pictures"),
    ],
)
def test_every_difference_is_found(runs, change, what):
    """And one that is none: a picture that equals the one it replaces."""
    expected, found = runs
    change(found)
    differing = [comparison.what for comparison in compare_runs(expected, found) if comparison.differences]
    assert any(what in name for name in differing) if what else not differing


@pytest.mark.slow
def test_a_run_with_two_kills_is_the_undisturbed_run(tmp_path):
    command = [sys.executable, "scripts/chaos.py", "--kills", "2", "--steps", "4", "--out", str(tmp_path / "chaos")]
    done = subprocess.run(
        [*command, "--json", str(tmp_path / "chaos.json")], cwd=ROOT, capture_output=True, text=True, timeout=3000
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((tmp_path / "chaos.json").read_text())
    assert result["same"] and len(result["attack"]["kills"]) == 2
