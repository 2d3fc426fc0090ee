"""Draws the questions that the suite `understanding` brings along: pictures of the tiny world and what is in them.

    python scripts/make_questions.py [FOLDER]

Signs (colour, word) and shapes (kind, colour, number) of the held-out split, four choices each.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

from PIL import Image

from blip3o_grpo.configs.tiny_world import SHAPE_COLORS, SHAPES
from blip3o_grpo.policies.tiny_world.world import NUMBERS, SIGN_COLORS, Scene, render, sample

FOLDER = Path(__file__).resolve().parents[1] / "configs" / "understanding"
PER_KIND = 12
CHOICES = 4
TAGS = {
    "colour of a sign": "sign",
    "word": "sign",
    "shape": "colors",
    "colour of a shape": "colors",
    "number": "counting",
}


def ask(kind: str, scene: Scene, rng: random.Random) -> tuple[str, str, list[str]]:
    """Question, right answer and wrong ones about a scene."""
    if kind == "colour of a sign":
        return "What colour is the sign?", scene.color, [color for color in SIGN_COLORS if color != scene.color]
    if kind == "word":
        letters = list(scene.word)
        others = {"".join(rng.sample(letters, len(letters))) for _ in range(99)} | {
            "".join(rng.choice("ABDEGHKLMNOPRSTU") for _ in letters) for _ in range(9)
        }
        return "What does the sign say?", scene.word, sorted(others - {scene.word})
    shape = scene.shapes[0]
    if kind == "shape":
        return "Which shape is this?", shape.kind, [other for other in SHAPES if other != shape.kind]
    if kind == "colour of a shape":
        wrong = [color for color in SHAPE_COLORS if color != shape.color]
        return f"What colour is the {shape.kind}?", shape.color, wrong
    words = {1: "one"} | {number: word for number, word in NUMBERS.items() if number > 1}
    wrong = [word for number, word in words.items() if number != len(scene.shapes)]
    return f"How many {shape.kind}s are there?", words[len(scene.shapes)], wrong


def main(folder: Path) -> None:
    rng = random.Random(0)
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    lines = []
    for number, kind in enumerate(kind for kind in TAGS for _ in range(PER_KIND)):
        scene = sample(rng, heldout=True, tag=TAGS[kind])
        question, answer, wrong = ask(kind, scene, rng)
        choices = rng.sample([answer, *rng.sample(wrong, CHOICES - 1)], CHOICES)
        name = f"q{number:02d}"
        Image.fromarray(render(scene)).save(folder / "pictures" / f"{name}.png", optimize=True)
        image = f"pictures/{name}.png"
        lines.append({"id": name, "image": image, "question": question, "choices": choices, "answer": answer})
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "signs_and_shapes.jsonl").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
