"""WISE's official result files, which `Calculate.py` (verified: `calculate_verified.py`) reads.

NAME.jsonl          prompt_id, Subcategory and the judge's numbers, by id
NAME_full.json      prompt_id, prompt, key, image_path, evaluation
NAME/ID.png         the images
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from blip3o_grpo.configs.atomic import write_atomically
from blip3o_grpo.rewards.result_files import check_new, image_folder, save_image
from blip3o_grpo.rewards.scored_prompt import ScoredPrompt
from blip3o_grpo.rewards.wise.records import KEY

MOST_IMAGES = 1


def check_results_path(path: Path) -> None:
    """Refuse a path where anything is already; raises ConfigError."""
    check_new(path, ".jsonl", (full_file(path), image_folder(path)))


def full_file(path: Path) -> Path:
    """File of the judge's own words."""
    return path.with_name(f"{path.stem}_full.json")


def write_results(path: Path, prompts: Sequence[ScoredPrompt]) -> None:
    """Write the results of prompts with explained scores, one image each."""
    scores, full = [], []
    for prompt in sorted(prompts, key=lambda prompt: prompt.metadata[KEY]["id"]):
        record, (explained,) = prompt.metadata[KEY], prompt.explanations
        file = save_image(image_folder(path), str(record["id"]), prompt.images[0])
        numbers = {label.lower().replace(" ", "_"): number for label, number in explained["numbers"].items()}
        scores.append({"prompt_id": record["id"], "Subcategory": record["subcategory"], **numbers})
        about = {"prompt": prompt.prompt, "key": record["explanation"], "image_path": str(file)}
        full.append({"prompt_id": record["id"], **about, "evaluation": explained["said"][0]})
    write_atomically(full_file(path), json.dumps(full, ensure_ascii=False, indent=2) + "\n")
    write_atomically(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in scores))
