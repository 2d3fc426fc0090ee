"""What a fall of gold leaves for people: numbers of every evaluation, and the same prompts at its best and now."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from blip3o_grpo.configs import RunConfig
from blip3o_grpo.configs.atomic import staged_folder
from blip3o_grpo.evaluation.gold import GoldFall, gold_changes
from blip3o_grpo.evaluation.grids import draw_grid
from blip3o_grpo.evaluation.heldout import Evaluation
from blip3o_grpo.rewards.images import open_rgb
from blip3o_grpo.run.files import EVALUATION_PICTURES, read_objects
from blip3o_grpo.run.folder import RunFolder

IMAGES = 3
"""Of each side of a row of pictures."""


def save_fall(
    target: Path, folder: RunFolder, config: RunConfig, fall: GoldFall, earlier: Sequence[Evaluation], now: str
) -> Path:
    """Write `gold.json` and, where both evaluations kept pictures of the same prompts, `pictures.png`.

    Args:
        target: folder to write.
        folder: of the run.
        config: of the run.
        fall: what was found.
        earlier: evaluations that it was found with.
        now: name of the evaluation that fell, such as `step-20`.

    Returns:
        `target`.

    Raises:
        RunFileError, ImageFileError: what the evaluations left is damaged.
        StorageError: the disk is full, for example.
    """
    current = Evaluation.load(folder.evaluations / f"{now}.json")
    best = next(evaluation for evaluation in earlier if evaluation.step == fall.best)
    lost = dict(sorted(gold_changes(best, current, fall.reward).items(), key=lambda item: item[1]))
    with staged_folder(target) as staged:
        about = {
            "reason": str(fall),
            **asdict(fall),
            "means": {str(evaluation.step): evaluation.means for evaluation in (*earlier, current)},
            "change_by_prompt": lost,
        }
        (staged / "gold.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
        rows = _rows(folder, "before" if fall.best == 0 else f"step-{fall.best}", now, list(lost), fall)
        if rows:
            draw_grid(rows).save(staged / "pictures.png")
    return target


def _rows(
    folder: RunFolder, best: str, now: str, prompts: Sequence[str], fall: GoldFall
) -> list[tuple[str, list[np.ndarray], list[str]]]:
    """Rows of a grid: left the pictures at gold's best, right those of now; what lost most comes first."""
    sides = [_pictures(folder.evaluations / f"{name}-images") for name in (best, now)]
    rows = []
    for id_ in prompts:
        if not all(id_ in side for side in sides):
            continue
        images, labels = [], []
        for side, step in zip(sides, (fall.best, fall.step), strict=True):
            line, place = side[id_]
            for number, file in enumerate(line["images"][:IMAGES]):
                images.append(np.asarray(open_rgb(place / file)))
                scores = {name: values[number] for name, values in line["rewards"].items()}
                labels.append(f"step {step}  " + "  ".join(f"{k} {v:.2f}" for k, v in scores.items() if v is not None))
        rows.append((line["prompt"], images, labels))
    return rows


def _pictures(folder: Path) -> dict[str, tuple[dict[str, Any], Path]]:
    index = folder / "index.jsonl"
    if not index.is_file():
        return {}
    return {line["prompt_id"]: (line, folder) for line in read_objects(index, EVALUATION_PICTURES)}
