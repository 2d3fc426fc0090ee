"""The card of a real run that paid for white pictures: what it lost is worse, and a second measurement agrees."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard

from blip3o_grpo.configs import DEFAULT_RECIPE

CHANGES = {
    "run_dir": "run",
    "prompts": {"train": "train.jsonl", "heldout": "heldout.jsonl"},
    "rewards": [
        {"name": "brightness", "type": "hacks:brightness"},
        {"name": "exact", "type": "ocr", "options": {"variant": "exact"}, "weight": 0},
    ],
    "rollout": {"prompts_per_step": 4, "group_size": 8, "num_diffusion_steps": 2, "record_every_steps": 0},
    "trainer": {"max_steps": 6, "learning_rate": 1e-3, "beta": 0},
    "evaluation": {"num_prompts": 12, "images_per_prompt": 2, "grid_prompts": 3},
}


def command(folder: Path, *words: str) -> subprocess.CompletedProcess:
    called = [sys.executable, "-m", "blip3o_grpo.cli", *words]
    return subprocess.run(called, cwd=folder, capture_output=True, text=True)


@pytest.mark.slow
def test_what_a_hack_cost_is_worse_and_can_be_verified(tmp_path):
    shutil.copy(Path(__file__).parents[1] / "study" / "hacks.py", tmp_path)
    for kind in ("train", "heldout"):
        shutil.copy(DEFAULT_RECIPE.parent / "prompts" / f"tiny_ocr_{kind}.jsonl", tmp_path / f"{kind}.jsonl")
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(CHANGES))
    trained = command(tmp_path, "train", "recipe.yaml")
    assert trained.returncode == 0, trained.stderr

    made = command(tmp_path, "card", "run", "--json")
    assert made.returncode == 1, made.stderr
    card = json.loads(made.stdout)
    rows = {f"{row['prompts']}/{row['measure']}": row for row in card["rows"]}
    assert rows["heldout/brightness"]["verdict"] == "better" and rows["heldout/brightness"]["weight"] == 1
    assert rows["heldout/suite_ocr"]["verdict"] == "worse" and rows["heldout/suite_ocr"]["weight"] == 0
    assert {"heldout/exact", "heldout/image/diversity", "reworded/suite_ocr", "reworded/brightness"} <= set(rows)
    assert {"texts/text_kl", "texts/text_nll", "questions/understanding"} <= set(rows)
    assert all(row["change"]["n"] == {"texts": 240, "questions": 60}.get(row["prompts"], 12) for row in rows.values())
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())["heldout"]
    for name in ("brightness", "exact"):  # the same prompts, seeds and noise as the run's own evaluations
        assert rows[f"heldout/{name}"]["before"]["mean"] == pytest.approx(summary["before"][name], abs=1e-4)
        assert rows[f"heldout/{name}"]["after"]["mean"] == pytest.approx(summary["after"][name], abs=1e-4)
    page = (tmp_path / "run" / "card.html").read_text()
    assert page.count('src="data:image') == 2 * 3 * 2 and "Worse: heldout/suite_ocr" in page
    hub = ModelCard.load(tmp_path / "run" / "policy" / "README.md")
    assert len(hub.data.eval_results) == len(rows)
    assert "after 6 steps of GRPO" in hub.text and "32 images of 4 prompts a step" in hub.text

    verified = command(tmp_path, "card", "--verify", "run/card.html", "--json")
    assert verified.returncode == 0, verified.stderr
    assert {check["status"] for check in json.loads(verified.stdout)} == {"same"}
