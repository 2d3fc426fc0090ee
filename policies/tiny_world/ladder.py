"""The ladder: where between drawn pixels and sampled images legibility is lost.

A policy is worth fine-tuning with GRPO when the head decodes exactly what the tokens say, whatever the prompt says
(leverage), and when the tokens it samples are right often enough, and wrong often enough, to differ within a group.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from blip3o_grpo.policies.blip3o_next.decoding import decode_completions
from blip3o_grpo.policies.blip3o_next.policy import BLIP3oNext
from blip3o_grpo.policies.blip3o_next.sampling import sample_image_tokens
from blip3o_grpo.policies.tiny_world import world

Reader = Callable[[list[np.ndarray], list[world.Scene]], list[float]]
"""Scores in [0, 1] of images against what the scenes show."""


@torch.no_grad()
def climb(
    policy: BLIP3oNext,
    scenes: Sequence[world.Scene],
    as_drawn: Reader,
    as_asked: Reader,
    *,
    num_groups: int = 24,
    group_size: int = 8,
    num_steps: int = 8,
) -> tuple[dict[str, float], dict[str, list[np.ndarray]]]:
    """Measure all rungs on held-out scenes of one kind.

    Args:
        policy: with the parts `ar`, `head` and `vision`.
        scenes: drawn scenes; a scene's neighbour in the list lends its prompt to the leverage rung.
        as_drawn: reads an image against the picture that was drawn.
        as_asked: reads an image against its prompt.
        num_groups: prompts of the sampled rung.
        num_steps: diffusion steps.

    Returns:
        Rung name to mean score (and `spread`, the share of groups whose members differ), and the images of each rung.
    """
    scenes = list(scenes)
    drawn = torch.from_numpy(np.stack([world.render(scene) for scene in scenes])).permute(0, 3, 1, 2).float() / 255
    latents = policy.vae.encode(drawn * 2 - 1).latent * policy.vae.config.scaling_factor
    tokens = policy.vision.encode(drawn) + policy.image_tokens.start
    prompts = [policy.prompts.encode(scene.prompt) for scene in scenes]
    others = prompts[1:] + prompts[:1]
    seeds = list(range(len(scenes)))
    images = {
        "drawn": [world.render(scene) for scene in scenes],
        "autoencoder": list(policy.latents_to_images(latents).numpy()),
        "tokens": list(decode_completions(policy, prompts, tokens, seeds, num_steps=num_steps).numpy()),
        "leverage": list(decode_completions(policy, others, tokens, seeds, num_steps=num_steps).numpy()),
    }
    rungs = {name: float(np.mean(as_drawn(rung, scenes))) for name, rung in images.items()}
    repeated = [i for i in range(num_groups) for _ in range(group_size)]
    sampled = sample_image_tokens(policy, [prompts[i] for i in repeated])
    noise = [seeds[i] for i in repeated]
    images["sampled"] = list(
        decode_completions(policy, [prompts[i] for i in repeated], sampled, noise, num_steps=num_steps).numpy()
    )
    scores = np.array(as_asked(images["sampled"], [scenes[i] for i in repeated])).reshape(num_groups, group_size)
    rungs["sampled"] = float(scores.mean())
    rungs["spread"] = float((scores.std(1) > 1e-6).mean())
    return rungs, images
