"""The ladder of a finished policy, as numbers and as picture grids."""

from __future__ import annotations

import random
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console

from blip3o_grpo.policies.blip3o_next.decoding import decode_completions
from blip3o_grpo.policies.blip3o_next.policy import BLIP3oNext
from blip3o_grpo.policies.blip3o_next.sampling import sample_image_tokens
from blip3o_grpo.policies.tiny_world import world
from blip3o_grpo.policies.tiny_world.ladder import SWAPS, climb, word_swap
from blip3o_grpo.rewards import Reward, RewardBatch, build_reward
from blip3o_grpo.rewards.detectors import build_detector
from blip3o_grpo.rewards.detectors.colors import build_colors
from blip3o_grpo.rewards.geneval.scoring import THRESHOLD
from scripts.tiny_build.patches import draw


def ocr_reader(images: list[np.ndarray], scenes: list[world.Scene]) -> list[float]:
    """The OCR reward in its `blip3o` variant, against the words on the signs."""
    reward = _ocr()
    metadata = [{"target_text": scene.word} for scene in scenes]
    return reward(RewardBatch(images=images, prompts=[scene.prompt for scene in scenes], metadata=metadata))


@cache
def _ocr() -> Reward:
    return build_reward("ocr", {})


def shapes_as_drawn(images: list[np.ndarray], scenes: list[world.Scene]) -> list[float]:
    """F1 of the shapes found, one matching another of its kind and colour within half a box."""
    detector, colors = build_detector("shapes"), build_colors("nearest")
    scores = []
    for image, scene, seen in zip(images, scenes, detector(images), strict=True):
        names = colors(image, seen, range(len(seen)))
        left = list(range(len(seen)))
        for shape in scene.shapes:
            centre = (np.array(shape.cell) + 1) * world.CELL
            for i in left:
                near = np.abs(centre - seen.boxes[i].reshape(2, 2).mean(0)).max() <= world.CELL
                if near and (seen.classes[i], names[i]) == (shape.kind, shape.color):
                    left.remove(i)
                    break
        scores.append(2 * (len(seen) - len(left)) / max(1, len(seen) + len(scene.shapes)))
    return scores


def shapes_as_asked(images: list[np.ndarray], scenes: list[world.Scene]) -> list[float]:
    """The strict GenEval verdict: kinds, colours, counts and relations of the prompt."""
    batch = RewardBatch(images, [scene.prompt for scene in scenes], [scene.metadata for scene in scenes])
    return _geneval()(batch)


@cache
def _geneval() -> Reward:
    options = {"score": "strict", "detector": "shapes", "colors": "nearest", "counting_threshold": THRESHOLD}
    return build_reward("geneval", options)


def measure(
    policy: BLIP3oNext, folder: Path, *, num_scenes: int, num_groups: int, diffusion_steps: int, console: Console
) -> dict:
    """Both ladders on held-out scenes, as numbers and as picture grids in `folder`."""
    ladder = {}
    kinds = {
        "signs": (draw(num_scenes, 7, heldout=True, tag="sign"), ocr_reader, ocr_reader),
        "shapes": (
            [scene for tag in world.TAGS for scene in draw(num_scenes // 6, 8, heldout=True, tag=tag)],
            shapes_as_drawn,
            shapes_as_asked,
        ),
    }
    for name, (scenes, as_drawn, as_asked) in kinds.items():
        order = random.Random(9).sample(range(len(scenes)), len(scenes))
        mixed = [scenes[i] for i in order]
        rungs, images = climb(policy, mixed, as_drawn, as_asked, num_groups=num_groups, num_steps=diffusion_steps)
        ladder[name] = {rung: round(score, 3) for rung, score in rungs.items()}
        for rung, pictures in images.items():
            save_grid(pictures[:64], folder / f"{name}_{rung}.png")
        console.print(name, ladder[name])
    return ladder


SWAP_SCENES = 256
TAG_SCENES, TAG_IMAGES = 32, 4


def measure_reading(policy: BLIP3oNext, *, scale: float, diffusion_steps: int, console: Console) -> dict:
    """How well the policy reads prompts: nats by which their twins are less likely, and strict verdicts by tag.

    Args:
        scale: share of the scenes, for a smoke test.
    """
    found: dict = {"word_swap": {}, "strict": {}}
    for tag, what in SWAPS.items():
        nats = word_swap(policy, draw(max(2, int(SWAP_SCENES * scale)), 5, heldout=True, tag=tag))
        read = {"nats": round(float(nats.mean()), 2), "n": len(nats), "read": round(float((nats > 0).mean()), 3)}
        found["word_swap"][what] = read
    for tag in world.TAGS:
        scenes = draw(max(2, int(TAG_SCENES * scale)), 8, heldout=True, tag=tag)
        repeated = [scene for scene in scenes for _ in range(TAG_IMAGES)]
        prompts = [policy.prompts.encode(scene.prompt) for scene in repeated]
        tokens = sample_image_tokens(policy, prompts, seed=10)
        noise = [number // TAG_IMAGES for number in range(len(repeated))]
        images = list(decode_completions(policy, prompts, tokens, noise, num_steps=diffusion_steps).numpy())
        found["strict"][tag] = round(float(np.mean(shapes_as_asked(images, repeated))), 3)
    found["strict"]["overall"] = round(float(np.mean(list(found["strict"].values()))), 3)
    console.print(found)
    return found


def save_grid(pictures: list[np.ndarray], file: Path, columns: int = 16, scale: int = 2) -> None:
    """Pictures side by side, enlarged without smoothing."""
    side = world.SIZE * scale + 4
    sheet = Image.new("RGB", (columns * side, -(-len(pictures) // columns) * side), "white")
    for i, picture in enumerate(pictures):
        big = Image.fromarray(picture).resize((world.SIZE * scale,) * 2, Image.Resampling.NEAREST)
        sheet.paste(big, (i % columns * side, i // columns * side))
    sheet.save(file)
