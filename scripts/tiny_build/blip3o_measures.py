"""What a tiny BLIP3-o has learnt, on held-out scenes: pictures by the strict GenEval verdict, text by its loss."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from blip3o_grpo.evaluation.statistics import Estimate, estimate
from blip3o_grpo.policies.blip3o.policy import BLIP3o
from blip3o_grpo.policies.tiny_world import world
from blip3o_grpo.warmstart.features import Loss, regress
from scripts.tiny_build.blip3o import encode, text_losses, text_rows
from scripts.tiny_build.measure import save_grid, shapes_as_asked
from scripts.tiny_build.patches import pixels

NUM_STEPS = 10
GUIDANCE = 3.0
BATCH = 48


@torch.no_grad()
def paint(
    policy: BLIP3o, prompts: list[str], seeds: list[int], loss: Loss, guidance_scale: float = GUIDANCE
) -> list[np.ndarray]:
    """One picture for each prompt, `[H, W, 3]` uint8: sampled, or regressed by a model trained by `mse`."""
    images: list[np.ndarray] = []
    for start in range(0, len(prompts), BATCH):
        part = slice(start, start + BATCH)
        condition = policy.condition([policy.prompts.encode(prompt) for prompt in prompts[part]])
        if loss == "mse":
            features = regress(policy, condition)
        else:
            features = policy.denoise(condition, policy.noise(seeds[part]), NUM_STEPS, guidance_scale)
        images += list(policy.latents_to_images(features).numpy())
    return images


@torch.no_grad()
def measure_arm(
    policy: BLIP3o, loss: Loss, scenes: list[world.Scene], images_per_prompt: int, grid: Path
) -> dict[str, np.ndarray]:
    """`strict` `[N]`, the mean verdict over a scene's pictures, and `text` `[N]`, nats a token of the repeated caption.

    Args:
        images_per_prompt: pictures of each scene's caption; of a model trained by `mse` all would be the same, so one.
        grid: where the first picture of each goes.
    """
    each = 1 if loss == "mse" else images_per_prompt
    repeated = [scene for scene in scenes for _ in range(each)]
    images = paint(policy, [scene.prompt for scene in repeated], list(range(len(repeated))), loss)
    save_grid(images[::each][:64], grid)
    strict = np.array(shapes_as_asked(images, repeated), dtype=float).reshape(-1, each).mean(1)
    rows, answers = text_rows(policy, scenes)
    return {"strict": strict, "text": text_losses(policy, rows, answers).numpy().astype(float)}


@torch.no_grad()
def measure_ceiling(policy: BLIP3o, scenes: list[world.Scene]) -> np.ndarray:
    """Verdicts `[N]` on the drawn pictures' own features, painted by the pixel decoder."""
    images = policy.latents_to_images(encode(policy, pixels(scenes)).float())
    return np.array(shapes_as_asked(list(images.numpy()), scenes), dtype=float)


def report(
    values: dict[str, dict[str, np.ndarray]], ceiling: np.ndarray, first: str, tags: list[str], console: Console
) -> dict:
    """Means with intervals of every arm, each arm's paired difference to the first, and the first's verdicts by tag."""
    told: dict[str, dict] = {"pixel_decoder": {"strict": estimate(ceiling)}}
    for arm, measured in values.items():
        told[arm] = {name: estimate(found) for name, found in measured.items()}
        if arm != first:
            told[f"{arm} - {first}"] = {
                name: estimate(found - values[first][name], paired=True) for name, found in measured.items()
            }
    by_tag = {tag: values[first]["strict"][[own == tag for own in tags]] for tag in dict.fromkeys(tags)}
    told[f"{first} by tag"] = {tag: estimate(found) for tag, found in by_tag.items()}
    for arm, measures in told.items():
        for name, found in measures.items():
            console.print(f"{arm}: {name} {_words(found)}", highlight=False)
    return {arm: {name: asdict(found) for name, found in measures.items()} for arm, measures in told.items()}


def _words(found: Estimate) -> str:
    return f"{found.mean:.3f} ({found.interval()}, n={found.n})"
