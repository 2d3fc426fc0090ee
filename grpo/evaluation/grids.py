"""Picture grids for people: one row per prompt, its caption above, pixels enlarged without blur."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from blip3o_grpo.configs.atomic import staged_file
from blip3o_grpo.evaluation.lettering import Lettering
from blip3o_grpo.rollout.types import RolloutGroup

CELL = 160
GAP = 8
FONT_SIZE = 15
LINE = 20


def draw_grid(
    rows: Sequence[tuple[str, Sequence[np.ndarray], Sequence[str]]], columns: int | None = None
) -> Image.Image:
    """Draw rows of (caption, images `[H, W, 3]` uint8, one label per image or none at all).

    Small images are enlarged to about 160 px by a whole factor with nearest-neighbour; large ones shrink to 320 px.
    Captions and labels break into lines that fit the grid's width and their picture's; a label's two-space gaps are
    where it breaks first.
    """
    columns = columns or max(len(images) for _, images, _ in rows)
    cells = [[_scaled(image) for image in images] for _, images, _ in rows]
    width, height = cells[0][0].size
    font = Lettering(FONT_SIZE)
    total = GAP + columns * (width + GAP)
    captions = [_lines(caption.split(), " ", total - 2 * GAP, font) for caption, _, _ in rows]
    labels = [[_lines(text.split("  "), "  ", width, font) for text in texts] for _, _, texts in rows]
    line_heights = [height + max(map(len, texts), default=0) * LINE + GAP for texts in labels]
    num_lines = [-(-len(images) // columns) for images in cells]
    heights = [
        len(caption) * LINE + num * line_height + GAP
        for caption, num, line_height in zip(captions, num_lines, line_heights, strict=True)
    ]
    grid = Image.new("RGB", (total, GAP + sum(heights)), "white")
    draw = ImageDraw.Draw(grid)
    top = GAP
    for row, (caption, images) in enumerate(zip(captions, cells, strict=True)):
        _write(draw, (GAP, top), caption, "black", font)
        for i, image in enumerate(images):
            x = GAP + i % columns * (width + GAP)
            y = top + len(caption) * LINE + i // columns * line_heights[row]
            grid.paste(image, (x, y))
            if labels[row]:
                _write(draw, (x, y + height + 1), labels[row][i], "#444444", font)
        top += heights[row]
    return grid


def _write(
    draw: ImageDraw.ImageDraw, corner: tuple[int, int], lines: Sequence[str], fill: str, font: Lettering
) -> None:
    for number, line in enumerate(lines):
        font.draw(draw, (corner[0], corner[1] + number * LINE), line, fill)


def _lines(parts: Sequence[str], gap: str, width: int, font: Lettering) -> list[str]:
    """Parts joined by gaps into lines of at most `width` px; a part that is wider by itself is cut."""
    lines = [""]
    for part in parts:
        joined = f"{lines[-1]}{gap}{part}" if lines[-1] else part
        if font.width(joined) <= width:
            lines[-1] = joined
            continue
        if lines[-1]:
            lines.append("")
        for letter in part:
            if font.width(lines[-1] + letter) > width:
                lines.append("")
            lines[-1] += letter
    return lines


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
    with staged_file(path) as staged:
        draw_grid(rows).save(staged)


def _label(rewards: dict[str, float | None]) -> str:
    return "  ".join(f"{name} {score:.2f}" for name, score in rewards.items() if score is not None)
