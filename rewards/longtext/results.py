"""LongText-Bench's official result file: a JSON line per image, with what was wanted and what was read.

    NAME.jsonl              prompt_id, prompt, ocr_gt, ocr_results, image_path
    NAME/ID-MEMBER.png      the images

The official evaluation (`evaluate_text_reward.py`) writes image, prompt, ocr_gt and ocr_results, of images named by the
prompt's number. Its scoring script reads `ocr_gt` and `ocr_results`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from blip3o_grpo.configs import ConfigError
from blip3o_grpo.configs.atomic import write_atomically
from blip3o_grpo.rewards.benchmarks import BenchmarkPrompt, RecordedAnswers
from blip3o_grpo.rewards.longtext.scoring import found_and_wanted
from blip3o_grpo.rewards.result_files import check_complete, check_new, image_folder, read_json_lines, save_image
from blip3o_grpo.rewards.scored_prompt import ScoredPrompt

_NUMBERED = re.compile(r"(?P<number>[0-9]{1,9})(_.*)?\.\w+")


def check_results_path(path: Path) -> None:
    """Refuse a path where anything is already; raises ConfigError."""
    check_new(path, ".jsonl", (image_folder(path),))


def read_results(
    path: Path, prompts: Sequence[BenchmarkPrompt], others: Sequence[BenchmarkPrompt] = ()
) -> RecordedAnswers:
    """Scores of recorded readings, `ocr_results`; a line per image. What was wanted is what the data say.

    The official evaluation writes no `prompt_id`: its lines are found by `prompt`, else by the image's name.

    Args:
        path: of the file.
        prompts: that are measured.
        others: of the data, passed over.

    Raises:
        ConfigError: naming the line or the prompt that is wrong; also where a line wants something else than the data,
            as those of the other language do under the same ids.
    """
    known = {prompt.metadata["prompt_id"]: prompt for prompt in (*prompts, *others)}
    readings: dict[str, list[str]] = {prompt.id: [] for prompt in known.values()}
    images: dict[str, str] = {}
    for place, line in read_json_lines(path):
        if "ocr_results" not in line:
            raise ConfigError(f"{place}: lacks the key 'ocr_results'")
        if not isinstance(line["ocr_results"], str):
            raise ConfigError(f"{place}: ocr_results is no text")
        image = line.get("image", line.get("image_path", ""))
        if not isinstance(image, str):
            raise ConfigError(f"{place}: the image's path is {image!r:.60} and no text")
        if image and place != images.setdefault(image, place):
            raise ConfigError(f"{place}: {image} appears twice (first in {images[image]})")
        prompt = _prompt_of(line, image, known, place)
        for key, wanted in (("prompt", prompt.text), ("ocr_gt", prompt.metadata["text"])):
            found = line.get(key, wanted)
            if (found.strip() if isinstance(found, str) else found) != wanted:
                raise ConfigError(
                    f"{place}: {key} is another than the data have for prompt_id {prompt.metadata['prompt_id']}; "
                    "are these results of the other language?"
                )
        readings[prompt.id].append(line["ocr_results"])
    check_complete(path, prompts, {name: len(found) for name, found in readings.items()})
    counted = [reading for prompt in prompts for reading in readings[prompt.id]]
    empty = sum(not reading.strip() for reading in counted)
    note = f"Of {len(counted)} recorded readings {empty} are empty: nothing that was wanted is found in them."
    return RecordedAnswers([_scored(prompt, readings[prompt.id]) for prompt in prompts], (note,) if empty else ())


def _prompt_of(
    line: Mapping[str, Any], image: str, known: Mapping[int, BenchmarkPrompt], place: str
) -> BenchmarkPrompt:
    """The prompt that a line is about: by `prompt_id`, by `prompt`, or by an image named `7.png` or `7_2.png`."""
    text = line.get("prompt")
    same = [prompt for prompt in known.values() if isinstance(text, str) and prompt.text == text.strip()]
    named = _NUMBERED.fullmatch(PurePath(image).name)
    if "prompt_id" in line:
        number = line["prompt_id"]
        if isinstance(number, bool) or not isinstance(number, int):
            raise ConfigError(f"{place}: prompt_id is {number!r:.60}; it must be a whole number")
    elif len(same) == 1:
        return same[0]
    elif named:
        number = int(named["number"])
    else:
        raise ConfigError(
            f"{place}: names no prompt of the data: neither by prompt_id, nor by its prompt, nor by an image "
            "as 7.png or 7_2.png"
        )
    if number not in known:
        raise ConfigError(f"{place}: prompt_id {number} is no prompt of the data")
    return known[number]


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
