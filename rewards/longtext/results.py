"""LongText-Bench's official result file: a JSON line per image, with what was wanted and what was read.

    NAME.jsonl              prompt_id, prompt, ocr_gt, ocr_results, image_path
    NAME/ID-MEMBER.png      the images

The benchmark's own scoring script reads `ocr_gt` and `ocr_results`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from blip3o_grpo.configs import ConfigError
from blip3o_grpo.configs.atomic import write_atomically
from blip3o_grpo.rewards.benchmarks import BenchmarkPrompt
from blip3o_grpo.rewards.longtext.scoring import found_and_wanted
from blip3o_grpo.rewards.result_files import check_complete, check_new, image_folder, read_json_lines, save_image
from blip3o_grpo.rewards.scored_prompt import ScoredPrompt


def check_results_path(path: Path) -> None:
    """Refuse a path where anything is already; raises ConfigError."""
    check_new(path, ".jsonl", (image_folder(path),))


def read_results(path: Path, prompts: Sequence[BenchmarkPrompt]) -> list[ScoredPrompt]:
    """Scores of recorded readings, `ocr_results`; a line per image. What was wanted is what the data say.

    Raises:
        ConfigError: naming the line or the prompt that is wrong.
    """
    readings: dict[str, list[str]] = {}
    for place, line in read_json_lines(path):
        for key in ("prompt_id", "ocr_results"):
            if key not in line:
                raise ConfigError(f"{place}: lacks the key {key!r}")
        if not isinstance(line["ocr_results"], str):
            raise ConfigError(f"{place}: ocr_results is no text")
        readings.setdefault(str(line["prompt_id"]), []).append(line["ocr_results"])
    named = {prompt.id: readings.get(prompt.id.partition("-")[2], []) for prompt in prompts}
    check_complete(path, prompts, {name: len(found) for name, found in named.items()})
    return [_scored(prompt, named[prompt.id]) for prompt in prompts]


def _scored(prompt: BenchmarkPrompt, readings: Sequence[str]) -> ScoredPrompt:
    language = prompt.id.partition("-")[0]
    counts = [found_and_wanted(prompt.metadata["text"], reading, language) for reading in readings]
    explanations = [
        {"reading": reading, "found": found, "wanted": wanted, "usage": {"answers": 1}}
        for reading, (found, wanted) in zip(readings, counts, strict=True)
    ]
    return ScoredPrompt(prompt.text, prompt.metadata, [], [f / w for f, w in counts], explanations, prompt.id)


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
