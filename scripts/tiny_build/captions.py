"""Pictures and captions on disk, and captions with mistakes."""

from __future__ import annotations

import json
import random
import re
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from blip3o_grpo.policies.tiny_world import world
from scripts.tiny_build.patches import draw


@dataclass(frozen=True)
class Noise:
    """How often a letter, a colour word, and a word for a shape, a count or a place is replaced by a random one."""

    letter: float = 0.0
    color: float = 0.0
    shape: float = 0.0


NOISE = Noise(letter=0.28, color=0.09, shape=0.09)
"""Of noisy captions."""


def noisy_caption(scene: world.Scene, rng: random.Random, noise: Noise = NOISE) -> str:
    """The caption with the mistakes captions from the web have: wrong letters, colours, counts, places.

    A model of the world that learns from these is right to be unsure, and that is what GRPO can mend.
    """
    caption = scene.prompt
    if scene.word:
        alphabet = world.DIGITS if scene.word.isdigit() else world.LETTERS
        word = "".join(rng.choice(alphabet) if rng.random() < noise.letter else letter for letter in scene.word)
        caption = caption.replace(f'"{scene.word}"', f'"{word}"')
    for words, share in (
        (world.COLORS, noise.color),
        (world.SHAPES, noise.shape),
        (world.RELATIONS, noise.shape),
    ):
        caption = _swap_words(caption, tuple(words), share, rng)
    return _swap_words(caption, ("two", "three", "four"), noise.shape, rng)


def _swap_words(caption: str, words: tuple[str, ...], share: float, rng: random.Random) -> str:
    """Replace each of `words` in the caption by a random one of them with probability `share`."""
    pattern = r"\b(" + "|".join(words) + r")(s?)\b"
    return re.sub(pattern, lambda match: (rng.choice(words) if rng.random() < share else match[1]) + match[2], caption)


def write_pictures(folder: Path, num: int, seed: int) -> None:
    """Training pictures with their captions, as any user's data would lie on disk."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    records = []
    for number, scene in enumerate(draw(num, seed)):
        name = f"{number:06d}.png"
        Image.fromarray(world.render(scene)).save(folder / "images" / name, compress_level=1)
        records.append({"file_name": name, "text": scene.prompt})
    lines = "".join(json.dumps(record) + "\n" for record in records)
    (folder / "captions.jsonl").write_text(lines, encoding="utf-8")


def corpus() -> list[str]:
    """Captions that hold every lower-case word of the world."""
    return [scene.prompt for tag in ("sign", *world.TAGS) for scene in draw(400, 3, tag=tag)]
