"""WISE's official result files, which `Calculate.py` (verified: `calculate_verified.py`) reads.

NAME.jsonl          prompt_id, Subcategory and the judge's numbers, by id
NAME_full.json      prompt_id, prompt, key, image_path, evaluation
NAME/ID.png         the images
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from blip3o_grpo.configs import ConfigError
from blip3o_grpo.configs.atomic import write_atomically
from blip3o_grpo.rewards.benchmarks import BenchmarkPrompt, RecordedAnswers
from blip3o_grpo.rewards.result_files import check_complete, check_new, image_folder, read_json_lines, save_image
from blip3o_grpo.rewards.scored_prompt import ScoredPrompt
from blip3o_grpo.rewards.wise.records import KEY
from blip3o_grpo.rewards.wise.scoring import HIGHEST, LABELS, wiscore

MOST_IMAGES = 1


def read_scores(
    path: Path, prompts: Sequence[BenchmarkPrompt], others: Sequence[BenchmarkPrompt] = ()
) -> RecordedAnswers:
    """Scores of recorded numbers: consistency, realism and aesthetic_quality, each 0, 1 or 2, an id's once.

    Args:
        path: of the file.
        prompts: that are measured.
        others: of the data, passed over.

    Raises:
        ConfigError: naming the line or the prompt that is wrong; 999, which the official script writes where a judge
            failed, is no score.
    """
    keys = {label.lower().replace(" ", "_"): label for label in LABELS}
    return _read(path, prompts, others, keys, HIGHEST, wiscore)


def read_verified_scores(
    path: Path, prompts: Sequence[BenchmarkPrompt], others: Sequence[BenchmarkPrompt] = ()
) -> RecordedAnswers:
    """The same of WISE_Verified's `score`, 0 or 1."""
    return _read(path, prompts, others, {"score": "score"}, 1, lambda numbers: float(numbers["score"]))


def _read(
    path: Path,
    prompts: Sequence[BenchmarkPrompt],
    others: Sequence[BenchmarkPrompt],
    keys: Mapping[str, str],
    highest: int,
    score: Callable[[Mapping[str, int]], float],
) -> RecordedAnswers:
    known = {prompt.id for prompt in (*prompts, *others)}
    found: dict[str, dict[str, int]] = {}
    for place, line in read_json_lines(path):
        if "prompt_id" not in line:
            raise ConfigError(f"{place}: lacks the key 'prompt_id'")
        number = line["prompt_id"]
        if isinstance(number, bool) or not isinstance(number, int):
            raise ConfigError(f"{place}: prompt_id is {number!r}; it must be a whole number")
        name = str(number)
        if name not in known:
            raise ConfigError(f"{place}: prompt_id {name} is no prompt of the data")
        if name in found:
            raise ConfigError(f"{place}: prompt_id {name} appears twice")
        found[name] = {label: _number(line.get(key), key, highest, place) for key, label in keys.items()}
    check_complete(path, prompts, dict.fromkeys(found, 1))
    return RecordedAnswers(
        [
            ScoredPrompt(
                prompt.text,
                prompt.metadata,
                [],
                [score(found[prompt.id])],
                [{"numbers": found[prompt.id], "usage": {"answers": 1}}],
                prompt.id,
            )
            for prompt in prompts
        ]
    )


def _number(value: Any, key: str, highest: int, place: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float) or value not in range(highest + 1):
        raise ConfigError(f"{place}: {key} is {value!r}; it must be a whole number from 0 to {highest}")
    return int(value)


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
