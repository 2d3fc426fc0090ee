"""The tiny world: 56 x 56 px pictures of signs and of coloured shapes, with captions worded like GenEval's.

Everything sits on an 8 px grid, so one image token sees a whole piece of a glyph or shape and the VQ tokenizer can be
exact; what the AR policy must learn is where which piece goes. Prompts are split by a hash of what they ask for (the
word; the combination of objects), so nothing of the held-out split is ever drawn for training.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from blip3o_grpo.configs.tiny_world import COLORS, SHAPE_BOX, SHAPE_COLORS, SHAPES, outline

SIZE = 56
CELL = 8
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
DIGITS = "0123456789"
SIGN_COLORS = ("red", "green", "blue", "purple", "brown", "black", "yellow", "pink")
DARK_TEXT_ON = ("yellow", "pink")
SKIES = ((198, 224, 244), (236, 228, 208), (222, 222, 228))
GROUNDS = ((120, 168, 92), (150, 140, 130))
PAPERS = ((250, 250, 247), (232, 240, 248))
SLOTS = (0, 2, 5)  # cells where the 16 px box of a shape may start
NUMBERS = {1: "a", 2: "two", 3: "three", 4: "four"}
RELATIONS = ("left of", "right of", "above", "below")
SIGN_TEMPLATES = (
    'a {color} sign that says "{word}"',
    'a photo of a {color} sign with the text "{word}"',
    'a {color} board that reads "{word}"',
)
SHAPE_TEMPLATES = (
    "a photo of {}",
    "a picture of {}",
    "a drawing of {}",
    "a painting of {}",
    "a sketch of {}",
    "a print of {}",
    "a card with {}",
    "a page with {}",
)
HELDOUT_SHARE = 16  # one in so many words and combinations is held out


@dataclass(frozen=True)
class Shape:
    """One drawn shape; `cell` is the top-left 8 px cell (column, row) of its 16 x 16 px box."""

    kind: str
    color: str
    cell: tuple[int, int]


@dataclass(frozen=True)
class Scene:
    """A picture and its caption.

    `key` is what the held-out split hashes; `metadata` is the prompt's record (OCR target or GenEval clauses).
    """

    prompt: str
    key: str
    metadata: dict
    word: str = ""
    color: str = ""
    cell: tuple[int, int] = (0, 0)
    shapes: tuple[Shape, ...] = ()
    backdrop: tuple[tuple[int, int, int], ...] = field(default=PAPERS[:1])


def is_heldout(key: str) -> bool:
    """Whether a word or combination belongs to the held-out split."""
    return int(hashlib.sha256(key.encode()).hexdigest(), 16) % HELDOUT_SHARE == 0


def sign(rng: random.Random) -> Scene:
    """A sign with a random word of 2 to 5 capitals, or a number of as many digits.

    Never mixed: a lone `0` between letters is an `O` to any reader.
    """
    alphabet = DIGITS if rng.random() < 0.15 else LETTERS
    word = "".join(rng.choice(alphabet) for _ in range(rng.choice((2, 3, 3, 4, 4, 5))))
    color = rng.choice(SIGN_COLORS)
    cell = (rng.randint(1, 6 - len(word)), rng.randint(1, 3))
    prompt = rng.choice(SIGN_TEMPLATES).format(color=color, word=word)
    return Scene(
        prompt,
        f"word:{word}",
        {"tag": "sign", "target_text": word, "color": color},
        word=word,
        color=color,
        cell=cell,
        backdrop=(rng.choice(SKIES), rng.choice(GROUNDS)),
    )


def shapes(rng: random.Random, tag: str) -> Scene:
    """A scene of shapes for one of GenEval's six tags, with the official record format as metadata."""
    kinds, colors = rng.sample(SHAPES, 2), rng.sample(SHAPE_COLORS, 2)
    first, second = kinds
    slots = [(column, row) for row in SLOTS for column in SLOTS]
    spots = rng.sample(slots, 4)
    include = [{"class": first, "count": 1}]
    metadata = {"tag": tag, "include": include}
    drawn = [Shape(first, colors[0], spots[0])]
    if tag == "single_object":
        asked, key = f"a {first}", f"single:{first}:{colors[0]}"
    elif tag == "colors":
        asked, key = f"a {colors[0]} {first}", f"colors:{first}:{colors[0]}"
        include[0]["color"] = colors[0]
    elif tag == "counting":
        count = rng.randint(2, 4)
        color = colors[0]
        asked, key = f"{NUMBERS[count]} {first}s", f"counting:{first}:{count}:{color}"
        include[0]["count"] = count
        metadata["exclude"] = [{"class": first, "count": count + 1}]
        drawn = [Shape(first, color, spot) for spot in spots[:count]]
    else:
        include.append({"class": second, "count": 1})
        here, there = sorted(spots[:2], key=lambda spot: (spot[1], spot[0]))  # captions name things in reading order
        drawn = [Shape(first, colors[0], here), Shape(second, colors[1], there)]
        if tag == "two_object":
            asked, key = f"a {first} and a {second}", f"two:{':'.join(sorted(kinds))}:{colors[0]}"
        elif tag == "color_attr":
            asked = f"a {colors[0]} {first} and a {colors[1]} {second}"
            key = f"attr:{first}:{colors[0]}:{second}:{colors[1]}"
            include[0]["color"], include[1]["color"] = colors
        elif tag == "position":
            relation = rng.choice(RELATIONS)
            here, there = _related(rng, relation)
            asked, key = f"a {first} {relation} a {second}", f"position:{first}:{relation}:{second}"
            # The official prompts put the object with the relation second: "A right of B" targets clause 0 = B.
            metadata["include"] = [
                {"class": second, "count": 1},
                {"class": first, "count": 1, "position": [relation, 0]},
            ]
            drawn = [Shape(first, colors[0], here), Shape(second, colors[1], there)]
        else:
            raise ValueError(f"unknown tag {tag!r}; the tags are {', '.join(TAGS)}")
    prompt = rng.choice(SHAPE_TEMPLATES).format(asked)
    return Scene(prompt, key, metadata, shapes=tuple(drawn), backdrop=(rng.choice(PAPERS),))


TAGS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")


def _related(rng: random.Random, relation: str) -> tuple[tuple[int, int], tuple[int, int]]:
    """Cells of two shapes, the first `relation` the second, on the same row or column."""
    near, far = sorted(rng.sample(SLOTS, 2))
    line = rng.choice(SLOTS)
    low, high = ((near, line), (far, line)) if relation.endswith("of") else ((line, near), (line, far))
    return (low, high) if relation in ("left of", "above") else (high, low)


def sample(rng: random.Random, *, heldout: bool, signs: float = 0.6, tag: str | None = None) -> Scene:
    """Draw a scene of one split.

    Args:
        rng: source of all randomness.
        heldout: which split.
        signs: share of signs; the rest are shapes of a random tag.
        tag: only this tag (`sign` or one of `TAGS`).
    """
    while True:
        chosen = tag or ("sign" if rng.random() < signs else rng.choice(TAGS))
        scene = sign(rng) if chosen == "sign" else shapes(rng, chosen)
        if is_heldout(scene.key) == heldout:
            return scene


@cache
def _glyph(letter: str) -> Image.Image:
    """Coverage mask of one character, 8 x 16 px: a bold monospaced glyph fitted into its cell."""
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    font = ImageFont.truetype(str(folder / "DejaVuSansMono-Bold.ttf"), 80)
    left, top, right, bottom = font.getbbox(letter)
    big = Image.new("L", (right - left, bottom - top))
    ImageDraw.Draw(big).text((-left, -top), letter, font=font, fill=255)
    width = 5 if letter in "I1" else 7
    mask = Image.new("L", (CELL, 2 * CELL))
    mask.paste(big.resize((width, 12), Image.Resampling.LANCZOS), ((CELL - width) // 2, 2))
    return mask


@cache
def shape_mask(kind: str) -> Image.Image:
    """Coverage mask of one shape, 16 x 16 px, antialiased."""
    scale = 8
    big = Image.new("L", (SHAPE_BOX * scale, SHAPE_BOX * scale))
    draw = ImageDraw.Draw(big)
    if kind == "circle":
        draw.ellipse([1 * scale, 1 * scale, 15 * scale, 15 * scale], fill=255)
    else:
        draw.polygon([(x * scale, y * scale) for x, y in outline(kind)], fill=255)
    return big.resize((SHAPE_BOX, SHAPE_BOX), Image.Resampling.LANCZOS)


def render(scene: Scene) -> np.ndarray:
    """Draw a scene: uint8 `[56, 56, 3]` RGB."""
    image = Image.new("RGB", (SIZE, SIZE), scene.backdrop[0])
    draw = ImageDraw.Draw(image)
    if scene.word:
        column, row = scene.cell
        left, top = column * CELL, row * CELL
        right, bottom = left + len(scene.word) * CELL, top + 2 * CELL
        draw.rectangle([0, SIZE - CELL, SIZE, SIZE], fill=scene.backdrop[1])
        middle = (column + len(scene.word) // 2) * CELL
        draw.rectangle([middle + 2, bottom, middle + 5, SIZE - 3], fill=(96, 96, 100))
        draw.rounded_rectangle([left - 7, top - 3, right + 6, bottom + 4], radius=3, fill=COLORS[scene.color])
        ink = (20, 20, 24) if scene.color in DARK_TEXT_ON else (255, 255, 255)
        for position, letter in enumerate(scene.word):
            image.paste(ink, (left + position * CELL, top + 1), _glyph(letter))
    for shape in scene.shapes:
        image.paste(COLORS[shape.color], (shape.cell[0] * CELL, shape.cell[1] * CELL), shape_mask(shape.kind))
    return np.asarray(image)
