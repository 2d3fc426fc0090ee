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

from PIL import Image

from blip3o_grpo.configs import ConfigError
from blip3o_grpo.configs.atomic import write_atomically
from blip3o_grpo.evaluation.heldout import prompt_tag
from blip3o_grpo.rollout import RolloutGroup

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


def write_results(path: Path, groups: Sequence[RolloutGroup], name: str) -> None:
    """Write the results of scored and explained groups; older results there are replaced.

    Args:
        path: JSONL file; its images go to a folder of the same name without the suffix.
        groups: in the order of their folders.
        name: of the GenEval reward, whose scores are strict.
    """
    folder = image_folder(path)
    path.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
    lines = []
    for index, group in enumerate(groups):
        samples = folder / f"{index:05d}" / "samples"
        samples.mkdir(parents=True)
        metadata = json.dumps({**group.prompt.metadata, "tag": prompt_tag(group.prompt), "prompt": group.prompt.text})
        (samples.parent / "metadata.jsonl").write_text(metadata + "\n", encoding="utf-8")
        for member, rollout in enumerate(group.rollouts):
            file = samples / f"{member:04d}.png"
            Image.fromarray(rollout.image).save(file)
            explanation = rollout.explanations[name]
            result = {
                "filename": str(file),
                "tag": prompt_tag(group.prompt),
                "prompt": group.prompt.text,
                "correct": rollout.rewards[name] == 1,
                "reason": explanation["reason"],
                "metadata": metadata,
                "details": json.dumps(explanation["found"]),
            }
            lines.append(json.dumps(result) + "\n")
    write_atomically(path, "".join(lines))


def _holds_results(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open(encoding="utf-8", errors="replace") as file:
        line = file.readline()
    try:
        return {"filename", "correct"} <= set(json.loads(line))
    except (json.JSONDecodeError, TypeError):
        return False


def _others(folder: Path) -> list[Path]:
    """What a folder holds beside images of results."""
    return [] if not folder.is_dir() else [p for p in sorted(folder.iterdir()) if not PROMPT_FOLDER.fullmatch(p.name)]
