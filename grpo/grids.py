"""Picture grids for people: one row per prompt, its caption above, pixels enlarged without blur."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from rollout.types import RolloutGroup

CELL = 160
GAP = 8
FONT_SIZE = 15
LINE = 20


def draw_grid(
    rows: Sequence[tuple[str, Sequence[np.ndarray], Sequence[str]]], columns: int | None = None
) -> Image.Image:
    """Draw rows of (caption, images `[H, W, 3]` uint8, one label per image or none at all).

    Small images are enlarged to about 160 px by a whole factor with nearest-neighbour; large ones shrink to 320 px.
    """
    columns = columns or max(len(images) for _, images, _ in rows)
    cells = [[_scaled(image) for image in images] for _, images, _ in rows]
    width, height = cells[0][0].size
    font = ImageFont.load_default(FONT_SIZE)
    total = GAP + columns * (width + GAP)
    captions = [textwrap.wrap(caption, max(20, total // 8)) or [""] for caption, _, _ in rows]
    labelled = any(labels for _, _, labels in rows)
    row_height = height + (LINE if labelled else 0) + GAP
    lines = [-(-len(images) // columns) for images in cells]
    grid = Image.new(
        "RGB",
        (total, GAP + sum(len(c) * LINE + n * row_height + GAP for c, n in zip(captions, lines, strict=True))),
        "white",
    )
    draw = ImageDraw.Draw(grid)
    y = GAP
    for (_, _, labels), images, caption in zip(rows, cells, captions, strict=True):
        for line in caption:
            draw.text((GAP, y), line, fill="black", font=font)
            y += LINE
        for i, image in enumerate(images):
            x, top = GAP + i % columns * (width + GAP), y + i // columns * row_height
            grid.paste(image, (x, top))
            if labels:
                draw.text((x, top + height + 1), labels[i], fill="#444444", font=font)
        y += -(-len(images) // columns) * row_height + GAP
    return grid


def _scaled(image: np.ndarray) -> Image.Image:
    picture = Image.fromarray(image)
    if picture.width > 2 * CELL:
        return picture.resize((2 * CELL, round(picture.height * 2 * CELL / picture.width)), Image.Resampling.LANCZOS)
    factor = max(1, round(CELL / picture.width))
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)


def save_grid(path: Path, groups: Sequence[RolloutGroup]) -> None:
    """Write the groups' images with their prompts as captions and their scores as labels."""
    rows = [
        (
            group.prompt.text,
            [rollout.image for rollout in group.rollouts],
            [_label(rollout.rewards) for rollout in group.rollouts],
        )
        for group in groups
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    draw_grid(rows).save(path)


def _label(rewards: dict[str, float | None]) -> str:
    return "  ".join(f"{name} {score:.2f}" for name, score in rewards.items() if score is not None)
