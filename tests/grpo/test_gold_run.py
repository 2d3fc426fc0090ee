"""A planted hack in a real run: what pays is white pictures, what is wanted is text. Gold stops the run in time."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file

from blip3o_grpo.configs import DEFAULT_RECIPE
from blip3o_grpo.evaluation.heldout import Evaluation
from blip3o_grpo.policies import BLIP3oNext
from blip3o_grpo.run.folder import RunFolder
from blip3o_grpo.run.manifest import read_manifest
from blip3o_grpo.run.metrics import read_metrics

CHANGES = {
    "run_dir": "run",
    "prompts": {"train": "train.jsonl", "heldout": "heldout.jsonl"},
    "rewards": [{"name": "brightness", "type": "hacks:brightness"}, {"name": "ocr", "weight": 0}],
    "rollout": {"prompts_per_step": 4, "group_size": 8, "num_diffusion_steps": 2, "record_every_steps": 0},
    "trainer": {"max_steps": 40, "learning_rate": 3e-4, "beta": 0},
    "evaluation": {"num_prompts": 16, "images_per_prompt": 2, "every_steps": 2, "grid_prompts": 4},
    "checkpoint": {"keep": 1},
    "guards": {"gold": ["ocr"]},
}


def command(folder: Path, *overrides: str) -> subprocess.CompletedProcess:
    words = [sys.executable, "-m", "blip3o_grpo.cli", "train", "recipe.yaml", *overrides]
    return subprocess.run(words, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """The folder of a run that paid for brightness, and what its command printed and returned."""
    folder = tmp_path_factory.mktemp("gold")
    shutil.copy(Path(__file__).parent / "study" / "hacks.py", folder)
    prompts = DEFAULT_RECIPE.parent / "prompts"
    for kind in ("train", "heldout"):
        shutil.copy(prompts / f"tiny_ocr_{kind}.jsonl", folder / f"{kind}.jsonl")
    (folder / "recipe.yaml").write_text(yaml.safe_dump(CHANGES))
    return folder, command(folder)


def gold(folder: RunFolder) -> dict[int, float]:
    """Held-out OCR by step."""
    start = {0: Evaluation.load(folder.evaluations / "before.json").means["ocr"]}
    return start | {line["step"]: line["heldout/ocr"] for line in read_metrics(folder.metrics) if "heldout/ocr" in line}


@pytest.mark.slow
def test_the_run_stops_and_the_checkpoint_that_is_kept_is_better_by_gold(stopped):
    folder, done = stopped
    run = RunFolder(folder / "run")
    assert done.returncode == 2, done.stdout
    said = " ".join(done.stdout.split())
    found = gold(run)
    last = max(found)
    assert f"error: step {last}: gold reward 'ocr' fell from" in said and "best by gold: " in said
    assert last < CHANGES["trainer"]["max_steps"]
    kept = {path.name: read_manifest(path).score for path in run.checkpoints.glob("checkpoint-*")}
    assert kept and max(kept.values()) > found[last]
    assert max(kept.values()) == max(value for step, value in found.items() if 0 < step < last)
    evidence = run.failures / f"guard-step-{last}"
    assert json.loads((evidence / "gold" / "gold.json").read_text())["step"] == last
    assert (evidence / "gold" / "pictures.png").stat().st_size > 1000
    assert len(list((evidence / "rank-0").glob("*.png"))) == 32


@pytest.mark.slow
def test_the_same_command_with_rollback_makes_the_best_by_gold_the_result(stopped):
    folder, _ = stopped
    run = RunFolder(folder / "run")
    found = gold(run)
    last = max(found)
    best = max((step for step in found if step < last), key=lambda step: (found[step], step))
    done = command(folder, "guards.gold_fall=rollback")
    assert done.returncode == 0, done.stdout
    summary = json.loads(run.summary.read_text())
    assert (summary["steps"], run.newest_step()) == (best, best)
    assert summary["heldout"]["after"]["ocr"] == pytest.approx(found[best], abs=1e-4)
    assert summary["heldout"]["after"]["ocr"] > found[last]
    policy = BLIP3oNext.from_pretrained(run.policy)
    if best:
        weights = load_file(run.newest_checkpoint() / "model.safetensors")
        assert policy.ar.lm_head.weight.equal(weights["lm_head.weight"])
    steps = len(read_metrics(run.metrics))
    again = command(folder, "guards.gold_fall=rollback")
    assert again.returncode == 0 and len(read_metrics(run.metrics)) == steps
