"""The ladder: where between drawn pixels and sampled images legibility is lost.

A policy is worth fine-tuning with GRPO when the head decodes exactly what the tokens say, whatever the prompt says
(leverage), and when the tokens it samples are right often enough, and wrong often enough, to differ within a group.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F

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


SWAPS = {"position": "opposite relation", "color_attr": "swapped colours"}
"""The tags whose prompts have a twin that asks for another picture with the same words, and what the twin swaps."""
OPPOSITES = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}


def swapped_prompt(scene: world.Scene) -> str:
    """The prompt that asks for the opposite: the other relation, or the two shapes' colours exchanged.

    Raises:
        ValueError: for a scene of another tag than those of `SWAPS`.
    """
    tag = scene.metadata["tag"]
    if tag == "position":
        relation = next(word for word in OPPOSITES if f" {word} " in scene.prompt)
        return scene.prompt.replace(relation, OPPOSITES[relation])
    if tag == "color_attr":
        one, other = scene.shapes
        asked, twin = (
            f"a {first} {one.kind} and a {second} {other.kind}"
            for first, second in ((one.color, other.color), (other.color, one.color))
        )
        return scene.prompt.replace(asked, twin)
    raise ValueError(f"a prompt of the tag {tag!r} has no twin; those of {', '.join(SWAPS)} have")


@torch.no_grad()
def word_swap(policy: BLIP3oNext, scenes: Sequence[world.Scene], batch_size: int = 64) -> np.ndarray:
    """By how many nats a drawn picture becomes less likely when its prompt is replaced by the twin.

    Sums over all image tokens, float64 `[N]`; 0 means that the policy does not read the words that differ.

    Args:
        policy: with the parts `ar` and `vision`.
        scenes: of the tags of `SWAPS`.
    """
    nats = []
    for start in range(0, len(scenes), batch_size):
        part = scenes[start : start + batch_size]
        drawn = torch.from_numpy(np.stack([world.render(scene) for scene in part])).permute(0, 3, 1, 2).float() / 255
        tokens = policy.vision.encode(drawn)
        asked, twin = (
            _log_likelihood(policy, prompts, tokens)
            for prompts in ([scene.prompt for scene in part], [swapped_prompt(scene) for scene in part])
        )
        nats.append((asked - twin).double().numpy())
    return np.concatenate(nats)


def _log_likelihood(policy: BLIP3oNext, prompts: list[str], tokens: torch.Tensor) -> torch.Tensor:
    """Log-likelihood `[N]` (nats) of image tokens `[N, T]` (codes) among the image tokens."""
    space = policy.image_tokens
    ids, mask = policy.prompts.pad([policy.prompts.encode(prompt) for prompt in prompts])
    hidden = policy.hidden_states(
        torch.cat([ids, tokens + space.start], 1), torch.cat([mask, torch.ones_like(tokens)], 1)
    )
    logits = F.linear(hidden[:, :-1], policy.ar.lm_head.weight[space.start : space.stop]).float()
    return logits.log_softmax(-1).gather(2, tokens[..., None]).squeeze(-1).sum(1)
