"""LongText-Bench's official result file: a JSON line per image, with what was wanted and what was read.

    NAME.jsonl              prompt_id, prompt, ocr_gt, ocr_results, image_path
    NAME/ID-MEMBER.png      the images

The benchmark's own scoring script reads `ocr_gt` and `ocr_results`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from blip3o_grpo.configs.atomic import write_atomically
from blip3o_grpo.rewards.result_files import check_new, image_folder, save_image
from blip3o_grpo.rewards.scored_prompt import ScoredPrompt


def check_results_path(path: Path) -> None:
    """Refuse a path where anything is already; raises ConfigError."""
    check_new(path, ".jsonl", (image_folder(path),))


def write_results(path: Path, prompts: Sequence[ScoredPrompt]) -> None:
    """Write the results of prompts with explained scores."""
    lines = []
    for prompt in prompts:
        for member, (image, explained) in enumerate(zip(prompt.images, prompt.explanations, strict=True)):
            file = save_image(image_folder(path), f"{prompt.id}-{member}", image)
            line = {
                "prompt_id": prompt.metadata["prompt_id"],
                "prompt": prompt.prompt,
                "ocr_gt": prompt.metadata["text"],
                "ocr_results": explained["reading"],
                "image_path": str(file),
            }
            lines.append(json.dumps(line, ensure_ascii=False) + "\n")
    write_atomically(path, "".join(lines))
