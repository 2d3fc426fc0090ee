"""GenEval's official result format: one JSON line per image, and the images in the official folder layout.

    results.jsonl                           filename, tag, prompt, correct, reason, metadata, details
    results/00000/metadata.jsonl            the record of the first prompt
    results/00000/samples/0000.png, ...     its images

The benchmark's `evaluation/summary_scores.py` reads the first, and `evaluation/evaluate_images.py` scores the folder
again (https://github.com/djghosh13/geneval).
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from blip3o_grpo.configs import ConfigError
from blip3o_grpo.configs.atomic import write_atomically
from blip3o_grpo.configs.regular_files import MAX_BYTES, open_regular, other_kind
from blip3o_grpo.rewards.geneval.records import TAG_TABLE
from blip3o_grpo.rewards.scored_prompt import ScoredPrompt

PROMPT_FOLDER = re.compile(r"\d{5}")


def check_results_path(path: Path) -> None:
    """Refuse a path where writing results would fail or replace anything but older results.

    Raises:
        ConfigError: naming the file or folder in the way.
    """
    if path.suffix != ".jsonl":
        raise ConfigError(f"{path}: results are written as .jsonl, not {path.suffix!r}")
    if path.exists() and not _holds_results(path):
        raise ConfigError(f"{path} exists and does not hold GenEval results; give another name")
    images = image_folder(path)
    others = [images] if images.is_file() else _others(images)
    if others:
        raise ConfigError(f"the images of {path} go to {images}, but {others[0]} is in the way; give another name")


def image_folder(path: Path) -> Path:
    """Folder of a result file's images."""
    return path.with_suffix("")


def write_results(path: Path, prompts: Sequence[ScoredPrompt]) -> None:
    """Write the results of prompts with strict scores and their explanations; older results there are replaced.

    Args:
        path: JSONL file; its images go to a folder of the same name without the suffix.
        prompts: in the order of their folders.
    """
    folder = image_folder(path)
    path.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
    lines = []
    for index, asked in enumerate(prompts):
        tag = TAG_TABLE.tag(asked.metadata)
        samples = folder / f"{index:05d}" / "samples"
        samples.mkdir(parents=True)
        metadata = json.dumps({**asked.metadata, "tag": tag, "prompt": asked.prompt})
        (samples.parent / "metadata.jsonl").write_text(metadata + "\n", encoding="utf-8")
        columns = zip(asked.images, asked.scores, asked.explanations, strict=True)
        for member, (image, score, explanation) in enumerate(columns):
            file = samples / f"{member:04d}.png"
            Image.fromarray(image).save(file)
            result = {
                "filename": str(file),
                "tag": tag,
                "prompt": asked.prompt,
                "correct": score == 1,
                "reason": explanation["reason"],
                "metadata": metadata,
                "details": json.dumps(explanation["found"]),
            }
            lines.append(json.dumps(result) + "\n")
    write_atomically(path, "".join(lines))


def _holds_results(path: Path) -> bool:
    entry = _first_entry(path)
    return isinstance(entry, dict) and {"filename", "correct"} <= entry.keys()


def _first_entry(path: Path) -> Any:
    """What JSON a file's first line holds; None: none."""
    if other_kind(path):
        return None
    with open_regular(path) as file:
        line = file.readline(MAX_BYTES)
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _others(folder: Path) -> list[Path]:
    """What a folder holds beside images of results."""
    return [] if not folder.is_dir() else [p for p in sorted(folder.iterdir()) if not PROMPT_FOLDER.fullmatch(p.name)]
