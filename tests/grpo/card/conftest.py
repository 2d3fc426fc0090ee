"""A card of a made-up run, and the run's folder, without measuring anything."""

from __future__ import annotations

import numpy as np
import pytest

from blip3o_grpo.card.card import Card
from blip3o_grpo.card.measures import DIVERSITY
from blip3o_grpo.card.plan import Request
from blip3o_grpo.configs import RunConfig, dump_config
from blip3o_grpo.evaluation.heldout import save_images
from blip3o_grpo.rollout.types import Completion, Prompt, Rollout, RolloutGroup
from tests.grpo.card.rows import row

PROMPT = 'a <b>red</b> sign that says "TAXI"'


@pytest.fixture
def config(tmp_path):
    return RunConfig.model_validate(
        {
            "run_dir": str(tmp_path / "signs"),
            "policy": {"path": "ORG/START-3B"},
            "prompts": {"train": "/home/me/train.jsonl", "heldout": "/home/me/heldout.jsonl"},
            "rewards": [{"name": "ocr", "weight": 2.0}, {"name": "guard", "type": "reference_guard", "weight": 0}],
        }
    )


@pytest.fixture
def card(config, tmp_path):
    """The card of a run, in whose folder are its configuration, its policy and pictures of both policies."""
    folder = tmp_path / "signs"
    (folder / "policy").mkdir(parents=True)
    (folder / "policy" / "model.safetensors").write_bytes(b"weights")
    (folder / "config.yaml").write_text(dump_config(config))
    image = np.full((16, 16, 3), 200, np.uint8)
    completion = Completion(np.zeros(2, np.int32), np.zeros(2, np.float32), 0, 0)
    group = RolloutGroup(Prompt("p", PROMPT), [], (Rollout(completion, image, {"ocr": 0.25}),))
    for name in ("card-start", "card-trained"):
        save_images(folder / "evaluations" / f"{name}-images", [group])
    return Card(
        run=str(folder),
        start="ORG/START-3B",
        steps=40,
        heldout="/home/me/other.jsonl",
        images_per_prompt=4,
        rows=[
            row("heldout", "ocr", 0.2, weight=2.0),
            row("heldout", "guard", -0.1),
            row("heldout", DIVERSITY, 0.0),
            row("reworded", "ocr", -0.03),
        ],
        left_out=["suite dpg: official data and a judge"],
        request=Request(suites=["ocr"], margins=["guard=0.05"], overrides=["evaluation.num_prompts=16"]),
        policies={"start": "a" * 64, "trained": "b" * 64},
        versions={"python": "3.11", "torch": "2.13"},
    )
