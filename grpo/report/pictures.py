"""Pictures of a run, ready for a page: read, made small enough, and turned into data URIs."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from blip3o_grpo.rewards.images import ImageFileError, open_rgb
from blip3o_grpo.run.folder import RunFolder

SIDES = ((120, 384), (300, 256))
"""Up to so many pictures on a page are shown with so many px; larger ones are shrunk and stored as JPEG."""
LEAST_SIDE = 160
MAX_GRID_WIDTH = 1400
PAGE_BYTES = 12 * 2**20
"""Pictures of a page have at most this size; what comes later is left out and said to be."""
PIXEL_ART = 128
"""Pictures up to this many px are enlarged without blur."""
SHOWN_WIDTH = 160
"""CSS px that an enlarged picture reaches at most, by a whole factor."""
MAX_PROMPTS = 32
MAX_IMAGES = 8
"""Held-out prompts, and images of each, that a page shows."""


@dataclass(frozen=True)
class Picture:
    """One image and what is written under it."""

    source: str | None
    """Data URI; None if there is nothing to show."""
    caption: str
    pixelated: bool = False
    width: int | None = None
    """CSS px; None: as wide as its place."""
    absent: str = "this picture is missing"
    """Why there is nothing to show."""


@dataclass(frozen=True)
class Pair:
    """A picture of the starting policy and that of a later one with the same seed; None: there is none."""

    before: Picture | None
    after: Picture | None


@dataclass(frozen=True)
class PromptPairs:
    """Held-out pictures of one prompt."""

    prompt: str
    pairs: tuple[Pair, ...]
    left_out: int = 0
    """Further images of the prompt."""


@dataclass(frozen=True)
class HeldoutPictures:
    """Held-out pictures of a run."""

    prompts: tuple[PromptPairs, ...]
    left_out: int = 0
    """Further prompts."""


class Album:
    """Embeds the pictures of one page, whose size it bounds.

    Args:
        expected: how many there will be.
        max_side: px, where the page wants less than their number allows.
    """

    def __init__(self, expected: int, max_side: int | None = None):
        allowed = next((side for most, side in SIDES if expected <= most), LEAST_SIDE)
        self.side = min(allowed, max_side or allowed)
        self.bytes_left = PAGE_BYTES

    def add(self, path: Path, caption: str, *, grid: bool = False) -> Picture:
        """A picture file as a data URI, which holds its pixels and nothing else of it.

        Args:
            grid: a picture grid, limited in width only.
        """
        try:
            image = open_rgb(path)
        except ImageFileError:  # missing, cut off by a crash, no picture
            return Picture(None, caption)
        limit = MAX_GRID_WIDTH / image.width if grid else self.side / max(image.size)
        pixelated = max(image.size) <= PIXEL_ART
        width = image.width * max(1, SHOWN_WIDTH // max(image.size)) if pixelated else None
        if limit >= 1:
            source = _data_uri(image, "PNG")
        else:
            size = (max(1, round(image.width * limit)), max(1, round(image.height * limit)))
            source = _data_uri(image.resize(size, Image.Resampling.LANCZOS), "JPEG", quality=88)
        if len(source) > self.bytes_left:
            return Picture(None, caption, absent="left out: the page would be too large")
        self.bytes_left -= len(source)
        return Picture(source, caption, pixelated, width)


def heldout_pictures(
    album: Album,
    run: RunFolder,
    before: Sequence[Mapping[str, Any]],
    later: str,
    after: Sequence[Mapping[str, Any]],
    earlier: str = "before",
) -> HeldoutPictures:
    """Before/after pictures per prompt, from the `index.jsonl` lines of two evaluations.

    Args:
        later: name of the evaluation of `after`.
        earlier: name of that of `before`.
    """
    folders = run.evaluations / f"{earlier}-images", run.evaluations / f"{later}-images"
    lines = [{line["prompt_id"]: line for line in found} for found in (before, after)]
    names = list(dict.fromkeys([*lines[0], *lines[1]]))
    prompts = []
    for name in names[:MAX_PROMPTS]:
        sides = [found.get(name) for found in lines]
        members = max(len(line["images"]) for line in sides if line)
        pairs = tuple(
            Pair(*(_member(album, folder, line, member) for folder, line in zip(folders, sides, strict=True)))
            for member in range(min(members, MAX_IMAGES))
        )
        prompt = next(line["prompt"] for line in sides if line)
        prompts.append(PromptPairs(prompt, pairs, max(0, members - MAX_IMAGES)))
    return HeldoutPictures(tuple(prompts), max(0, len(names) - MAX_PROMPTS))


def grid_pictures(album: Album, run: RunFolder, later: str | None) -> list[Picture]:
    """The saved picture grids, `before` and `later`, as far as they exist."""
    names = [name for name in ("before", later) if name and (run.grids / f"{name}.png").is_file()]
    return [album.add(run.grids / f"{name}.png", name, grid=True) for name in names]


def scores(rewards: Mapping[str, float | None]) -> str:
    """`ocr 0.75 · guard 1.00`; a reward that does not apply shows a dash."""
    return " · ".join(
        f"{name}\N{NO-BREAK SPACE}{'–' if value is None else f'{value:.2f}'}" for name, value in rewards.items()
    )


def _member(album: Album, folder: Path, line: Mapping[str, Any] | None, member: int) -> Picture | None:
    if line is None or member >= len(line["images"]):
        return None
    caption = scores({name: values[member] for name, values in line["rewards"].items()})
    return album.add(folder / line["images"][member], caption)


def _data_uri(image: Image.Image, kind: str, **options: Any) -> str:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"
