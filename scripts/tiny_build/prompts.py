"""Prompt files of the tiny recipes: signs to write, and GenEval records of shapes; training and held-out split."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from blip3o_grpo.policies.tiny_world import world
from scripts.tiny_build.patches import draw

MOST_PROMPTS = {False: 120, True: 32}
"""Prompts of a tag, by held-out or not."""
TIMES = {"single_object": 4}
"""Tags with few prompts: how often each stands in the training file, so that none of the tags is rare."""
FEW_PROMPTS = ("single_object", "two_object", "counting")
"""Tags with so few prompts that the policy's warm start saw them all: one in four is kept from GRPO."""


def write_prompts(folder: Path) -> None:
    """Write `tiny_{ocr,geneval,mixed}_{train,heldout}.jsonl`."""
    folder.mkdir(parents=True, exist_ok=True)
    for heldout, name in ((False, "train"), (True, "heldout")):
        signs, shapes = sign_records(heldout), shape_records(heldout)
        mixed = [record for pair in zip(signs, shapes, strict=False) for record in pair]
        for suite, records in (("ocr", signs), ("geneval", shapes), ("mixed", mixed)):
            lines = "".join(json.dumps(record) + "\n" for record in records)
            (folder / f"tiny_{suite}_{name}.jsonl").write_text(lines, encoding="utf-8")


def sign_records(heldout: bool) -> list[dict]:
    """Distinct signs: 1,024 to train on, 128 held out."""
    num, seed = (128, 22) if heldout else (1024, 21)
    scenes = {scene.key: scene for scene in draw(2 * num, seed, heldout=heldout, tag="sign")}
    return [{"prompt": scene.prompt, **scene.metadata} for scene in list(scenes.values())[:num]]


def shape_records(heldout: bool) -> list[dict]:
    """GenEval records, tag by tag in turn; distinct if held out, else some tags' several times."""
    tags = []
    for tag in world.TAGS:
        found = {}
        for split in (False, True):
            for scene in draw(4000, 23, heldout=split, tag=tag):
                if (_held_back(scene) if tag in FEW_PROMPTS else split) == heldout:
                    found[scene.prompt] = {"prompt": scene.prompt, **scene.metadata}
        records = list(found.values())[: MOST_PROMPTS[heldout]]
        times = 1 if heldout else TIMES.get(tag, 1)
        tags.append(
            records + [{**record, "id": f"{record['prompt']} {n}"} for n in range(2, times + 1) for record in records]
        )
    longest = max(len(records) for records in tags)
    return [records[i] for i in range(longest) for records in tags if i < len(records)]


def _held_back(scene: world.Scene) -> bool:
    """Whether what a prompt asks for, in whatever order, is kept from training."""
    asked = sorted(f"{clause['count']} {clause['class']}" for clause in scene.metadata["include"])
    return hashlib.sha256(" ".join(asked).encode()).digest()[0] % 4 == 0
