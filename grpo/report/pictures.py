"""Pictures of a run, ready for a page: read, made small enough, and turned into data URIs."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from blip3o_grpo.configs.regular_files import is_regular
from blip3o_grpo.rewards.images import ImageFileError, open_rgb
from blip3o_grpo.rollout.records import read_step
from blip3o_grpo.run.files import EVALUATION_PICTURES, read_objects
from blip3o_grpo.run.folder import RunFolder

MAX_SIDE = 384
"""Larger pictures are shrunk to this many px and stored as JPEG; smaller ones keep their pixels."""
MAX_GRID_WIDTH = 1400
PIXEL_ART = 128
"""Pictures up to this many px are enlarged without blur."""
GROUPS_PER_STEP = 4


@dataclass(frozen=True)
class Picture:
    """One image and what is written under it."""

    source: str | None
    """Data URI; None if the file is missing or broken."""
    caption: str
    pixelated: bool = False


@dataclass(frozen=True)
class PromptPictures:
    """Held-out pictures of one prompt under the starting policy and under a later one (empty if there is none yet)."""

    prompt: str
    before: tuple[Picture, ...]
    after: tuple[Picture, ...]


@dataclass(frozen=True)
class GroupPictures:
    """Best and worst picture of a recorded group."""

    prompt: str
    best: Picture
    worst: Picture


@dataclass(frozen=True)
class StepPictures:
    """The first groups of a recorded step."""

    step: int
    groups: tuple[GroupPictures, ...]
    num_groups: int


def heldout_pictures(run: RunFolder, later: str | None) -> list[PromptPictures]:
    """Before/after pictures per prompt, from `evaluations/NAME-images`; empty if the run saved none.

    Args:
        later: name of the evaluation to show beside `before`.
    """
    before = _evaluation_images(run, "before")
    after = {line["prompt_id"]: line for line in (_evaluation_images(run, later) if later else [])}
    return [
        PromptPictures(
            line["prompt"],
            _shots(run.evaluations / "before-images", line),
            _shots(run.evaluations / f"{later}-images", after.get(line["prompt_id"], {})),
        )
        for line in before
    ]


def grid_pictures(run: RunFolder, later: str | None) -> list[Picture]:
    """The saved picture grids, `before` and `later`, as far as they exist."""
    names = [name for name in ("before", later) if name and (run.grids / f"{name}.png").is_file()]
    return [embed(run.grids / f"{name}.png", name, max_side=None) for name in names]


def rollout_pictures(run: RunFolder) -> list[StepPictures]:
    """Best and worst pictures of the first, the middle and the last recorded step."""
    folders = sorted(f for f in (run.path / "rollouts").glob("step-[0-9]*") if f.name[5:].isdecimal())
    chosen = [folders[i] for i in sorted({0, len(folders) // 2, len(folders) - 1})] if folders else []
    return [_step(folder) for folder in chosen]


def embed(path: Path, caption: str, max_side: int | None = MAX_SIDE) -> Picture:
    """A picture file as a data URI, which holds its pixels and nothing else of it.

    Args:
        max_side: longest side in px; None: a grid, limited in width only.
    """
    try:
        image = open_rgb(path)
    except ImageFileError:  # missing, cut off by a crash, no picture
        return Picture(None, caption)
    limit = max_side / max(image.size) if max_side else MAX_GRID_WIDTH / image.width
    if limit >= 1:
        return Picture(_data_uri(image, "PNG"), caption, max(image.size) <= PIXEL_ART)
    size = (max(1, round(image.width * limit)), max(1, round(image.height * limit)))
    return Picture(_data_uri(image.resize(size, Image.Resampling.LANCZOS), "JPEG", quality=90), caption)


def scores(rewards: Mapping[str, float | None]) -> str:
    """`ocr 0.75 · guard 1.00`; a reward that does not apply shows a dash."""
    return " · ".join(
        f"{name}\N{NO-BREAK SPACE}{'–' if value is None else f'{value:.2f}'}" for name, value in rewards.items()
    )


def _evaluation_images(run: RunFolder, name: str) -> list[dict[str, Any]]:
    index = run.evaluations / f"{name}-images" / "index.jsonl"
    return read_objects(index, EVALUATION_PICTURES) if is_regular(index) else []


def _shots(folder: Path, line: Mapping[str, Any]) -> tuple[Picture, ...]:
    images: Sequence[str] = line.get("images", ())
    rewards: Mapping[str, Sequence[float | None]] = line.get("rewards", {})
    return tuple(
        embed(folder / image, scores({name: values[member] for name, values in rewards.items()}))
        for member, image in enumerate(images)
    )


def _step(folder: Path) -> StepPictures:
    lines = read_step(folder / "rollouts.jsonl")
    groups = tuple(
        GroupPictures(line["prompt"], _member(folder, line, "best"), _member(folder, line, "worst"))
        for line in lines[:GROUPS_PER_STEP]
    )
    return StepPictures(int(folder.name.removeprefix("step-")), groups, len(lines))


def _member(folder: Path, line: Mapping[str, Any], kind: str) -> Picture:
    chosen = line[kind]
    return embed(folder / chosen["image"], scores(line["rollouts"][chosen["member"]]["rewards"]))


def _data_uri(image: Image.Image, kind: str, **options: Any) -> str:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"
