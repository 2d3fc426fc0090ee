"""Forty pictures with captions, and prompts for training and held out: what docs/tutorial.md uses for your own.

    python examples/own_images/make_pictures.py data/own_images

The pictures stand for photographs of a tea house's signs: always purple, on sand and stone. They are drawn from pieces
that the tiny policy's tokenizer knows, because it is too small for photographs; the released one is not.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterable
from pathlib import Path

from PIL import Image

from blip3o_grpo.policies.tiny_world.world import GROUNDS, SKIES, Scene, is_heldout, render, sign

WORDS = (
    "TEA OPEN MENU CAFE CAKE BAR MILK ICE PIE JAM HOT COLD SOUP RICE FISH EGG HAM NUT PLUM KIWI "
    "MINT ROSE HERB PEKOE ASSAM CHAI MATE LATTE MOCHA CREAM SUGAR HONEY LEMON SCONE BREAD TOAST CUP POT SPOON SALE"
)
CAPTION = 'a tea house sign that says "{word}"'
NUM_TRAIN, NUM_HELDOUT = 400, 64


def draw_sign(word: str, column: int, row: int) -> Image.Image:
    """A sign with a word of 2 to 5 capitals; its first letter is in this cell of the 7 x 7."""
    scene = Scene("", "", {}, word=word, color="purple", cell=(column, row), backdrop=(SKIES[1], GROUNDS[1]))
    return Image.fromarray(render(scene))


def write_lines(file: Path, records: Iterable[dict]) -> None:
    file.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


def make_prompts(num: int, rng: random.Random, *, heldout: bool) -> list[dict]:
    """Prompts with words of their own: none of the forty's, and no training word is held out."""
    words: dict[str, None] = {}
    while len(words) < num:
        word = sign(rng).word
        if is_heldout(f"word:{word}") == heldout and word not in WORDS.split():
            words[word] = None
    return [{"prompt": CAPTION.format(word=word), "target_text": word} for word in words]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    rng, captions = random.Random(0), []
    for word in WORDS.split():
        picture = draw_sign(word, rng.randint(1, 6 - len(word)), rng.randint(1, 3))
        picture.save(folder / "pictures" / f"{word.lower()}.png")
        captions.append({"file_name": f"{word.lower()}.png", "text": CAPTION.format(word=word)})
    write_lines(folder / "captions.jsonl", captions)
    write_lines(folder / "train.jsonl", make_prompts(NUM_TRAIN, rng, heldout=False))
    write_lines(folder / "heldout.jsonl", make_prompts(NUM_HELDOUT, rng, heldout=True))
    print(f"{len(captions)} pictures, {NUM_TRAIN} training prompts, {NUM_HELDOUT} held-out prompts: {folder}")  # noqa: T201


if __name__ == "__main__":
    main()
