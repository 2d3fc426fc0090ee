"""What `check_reward` scores: example images, or the author's own images and prompts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np

from blip3o_grpo.configs.regular_files import read_text
from blip3o_grpo.rewards.types import RewardBatch, RewardError


def example_batch(num_images: int = 4, size: int = 64) -> RewardBatch:
    """Noise, flat and gradient images with prompts that quote text: a batch for rewards without special needs."""
    generator = np.random.default_rng(0)
    gradient = np.repeat(np.linspace(0, 255, size).astype(np.uint8)[None, :, None], size, axis=0).repeat(3, axis=2)
    kinds = (
        generator.integers(0, 256, (size, size, 3), dtype=np.uint8),
        np.full((size, size, 3), 255, np.uint8),
        gradient,
    )
    images = [kinds[index % len(kinds)].copy() for index in range(num_images)]
    prompts = [f'a blue sign that says "SIGN {index}"' for index in range(num_images)]
    return RewardBatch(images, prompts, [{} for _ in range(num_images)])


def author_batch(
    images: Sequence[Any] | None, prompts: Sequence[str | Mapping[str, Any]] | str | Path | None
) -> RewardBatch:
    """A batch of the author's images and prompts; the shorter is repeated, and what is missing is an example's.

    Raises:
        RewardError: an image or a prompt that is none, naming it.
    """
    if images is not None and not len(images):
        raise RewardError("check_reward needs at least one image")
    rows = None if prompts is None else _prompts(prompts)
    example = example_batch()
    if images is None:
        pictures = list(example.images)
    else:
        from blip3o_grpo.rewards.images import as_rgb  # needs Pillow, which a worker's environment may lack

        pictures = [np.array(as_rgb(image)) for image in images]
    rows = rows or list(zip(example.prompts, example.metadata, strict=True))
    size = max(len(pictures), len(rows) if prompts is not None else 0)
    chosen = list(islice(cycle(rows), size))
    return RewardBatch(
        [picture.copy() for picture in islice(cycle(pictures), size)],
        [prompt for prompt, _ in chosen],
        [dict(metadata) for _, metadata in chosen],
    )


def _prompts(prompts: Sequence[str | Mapping[str, Any]] | str | Path) -> list[tuple[str, Mapping[str, Any]]]:
    if isinstance(prompts, str | Path):
        return _read(Path(prompts))
    rows = [_row(prompt, f"prompts[{index}]") for index, prompt in enumerate(prompts)]
    if not rows:
        raise RewardError("check_reward needs at least one prompt")
    return rows


def _row(prompt: Any, place: str) -> tuple[str, Mapping[str, Any]]:
    if isinstance(prompt, Mapping):
        text, metadata = prompt.get("prompt"), {k: v for k, v in prompt.items() if k not in ("prompt", "id")}
    else:
        text, metadata = prompt, {}
    if not isinstance(text, str) or not text.strip():
        raise RewardError(f"{place}: expected a text, or a mapping with the key `prompt`, found {prompt!r:.100}")
    return text.strip(), metadata


def _read(file: Path) -> list[tuple[str, Mapping[str, Any]]]:
    """The prompts of a file that `train` would read; a mistake in it is named by its line."""
    if file.suffix not in (".txt", ".jsonl"):
        raise RewardError(f"prompts {str(file)!r}: give a list of texts, or a prompt file (.txt or .jsonl)")
    try:
        lines = read_text(file, "utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise RewardError(f"{file}: cannot be read: {error}") from error
    rows = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                prompt = line if file.suffix == ".txt" else json.loads(line)
            except (ValueError, RecursionError) as error:
                raise RewardError(f"{file}:{number}: not valid JSON: {error}") from error
            rows.append(_row(prompt, f"{file}:{number}"))
    if not rows:
        raise RewardError(f"{file}: the file holds no prompts")
    return rows
