"""Files of a benchmark's own results: a file and a folder of images beside it, which must not be there yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from blip3o_grpo.configs import ConfigError
from blip3o_grpo.configs.strict_json import parse_json
from blip3o_grpo.rewards.benchmarks import BenchmarkPrompt, decode, read_data


def read_lines(path: Path) -> list[tuple[str, str]]:
    """Lines of a result file that hold something, each with its place for messages.

    Lines end with a line feed alone: JSON and judges' words may hold other separators, such as U+2028.

    Raises:
        ConfigError: it is not there, or no text.
    """
    text = decode(read_data(path, "the benchmark's data, and recorded answers take the place of a policy"), path)
    lines = enumerate(text.split("\n"), start=1)
    return [(f"{path}:{number}", line.rstrip("\r")) for number, line in lines if line.strip()]


def read_json_lines(path: Path) -> list[tuple[str, Mapping[str, Any]]]:
    """Objects of a JSONL result file, each with its place.

    Raises:
        ConfigError: as `read_lines`, or a line that is no JSON object.
    """
    found = []
    for place, line in read_lines(path):
        try:
            value = parse_json(line)
        except ValueError as error:
            raise ConfigError(f"{place}: {error}") from error
        if not isinstance(value, Mapping):
            raise ConfigError(f"{place}: expected an object, found {type(value).__name__}")
        found.append((place, value))
    return found


def check_complete(path: Path, prompts: Sequence[BenchmarkPrompt], counts: Mapping[str, int]) -> None:
    """Every prompt has answers, about equally many images.

    Args:
        path: of the answers, for messages.
        prompts: that were asked for.
        counts: prompt id to images with answers.

    Raises:
        ConfigError: naming the first prompt without, and how many there are.
    """
    missing = [prompt.id for prompt in prompts if not counts.get(prompt.id)]
    if missing:
        raise ConfigError(
            f"{path}: holds no answers for {len(missing)} of {len(prompts)} prompts, first {missing[0]!r}"
        )
    numbers = {prompt.id: counts[prompt.id] for prompt in prompts}
    first = next(iter(numbers))
    for name, number in numbers.items():
        if number != numbers[first]:
            raise ConfigError(f"{path}: {numbers[first]} images of prompt {first!r}, but {number} of {name!r}")


def check_new(path: Path, suffix: str, beside: Sequence[Path]) -> None:
    """Refuse a path of another kind, or one where anything is already.

    Args:
        path: the result file.
        suffix: that it must have.
        beside: what else will be written.

    Raises:
        ConfigError: naming what is in the way.
    """
    if path.suffix != suffix:
        raise ConfigError(f"{path}: these results are written as {suffix}, not {path.suffix!r}")
    for file in (path, *beside):
        if file.exists():
            raise ConfigError(f"{file} exists; give another name")


def image_folder(path: Path) -> Path:
    """Folder of a result file's images."""
    return path.with_suffix("")


def save_image(folder: Path, name: str, image: np.ndarray) -> Path:
    """Write `[H, W, 3]` uint8 as a PNG; gives its path."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}.png"
    Image.fromarray(image).save(file)
    return file
