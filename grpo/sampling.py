"""Images of prompts, drawn in this process with plain transformers: no Ray, no vLLM, no rewards."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image
from rich.console import Console

from blip3o_grpo.configs import ConfigError
from blip3o_grpo.planning.pictures import require_memory
from blip3o_grpo.policies import PromptEncoder, check_headers, image_side
from blip3o_grpo.progress import Bar, activity
from blip3o_grpo.run.folder import policy_folder

if TYPE_CHECKING:
    from blip3o_grpo.policies import BLIP3oNext

MAX_IMAGES = 4096
"""Of one prompt, which are drawn together."""
MAX_STEPS = 1000
"""Noise levels that the diffusion head was trained with."""


def sample_images(
    policy: str | Path | BLIP3oNext,
    prompts: Sequence[str],
    *,
    images: int,
    seed: int,
    temperature: float,
    top_p: float,
    top_k: int,
    steps: int,
    guidance: float,
    console: Console,
) -> list[list[Image.Image]]:
    """For each prompt its images (`blip3o_grpo.sample` says what the arguments mean); progress goes to `console`.

    Prompt number n draws its tokens from `seed + n`; image number m of every prompt starts from the noise `seed + m`.

    Raises:
        ConfigError: a number out of range.
        CheckpointError, PromptError: the policy cannot be loaded, a prompt does not fit it.
    """
    for name, value, least, most in (
        ("images", images, 1, MAX_IMAGES),
        ("seed", seed, 0, math.inf),
        ("steps", steps, 1, MAX_STEPS),
        ("guidance", guidance, 1, math.inf),
        ("top_k", top_k, 0, math.inf),
    ):
        if not least <= value < math.inf:
            raise ConfigError(f"{name} is {value}; it must be at least {least}, and finite")
        if value > most:
            raise ConfigError(f"{name} is {value}; it may be {most} at most")
    if not 0 < temperature < math.inf:
        raise ConfigError(f"temperature is {temperature}; it must be above 0, and finite")
    if not 0 < top_p <= 1:
        raise ConfigError(f"top_p is {top_p}; it must be above 0 and at most 1")
    if isinstance(policy, str | Path):  # what files and prompts can tell, before torch is imported
        folder = check_headers(policy_folder(str(policy)))
        require_memory(len(prompts) * images, image_side(folder), "prompts x images")
        encoder = PromptEncoder.from_pretrained(folder, plain=True)
        encoded = [encoder.encode(prompt) for prompt in prompts]
        with activity(console, f"loading the policy {folder}"):
            from blip3o_grpo.policies import BLIP3oNext

            policy = BLIP3oNext.from_pretrained(folder)
    else:
        encoded = [policy.prompts.encode(prompt) for prompt in prompts]
    from blip3o_grpo.policies.blip3o_next.decoding import decode_completions
    from blip3o_grpo.policies.blip3o_next.sampling import sample_image_tokens

    drawn = []
    with Bar(console, "drawing", len(encoded), unit="prompt") as bar:
        for number, ids in enumerate(encoded):
            batch = [ids] * images
            tokens = sample_image_tokens(
                policy, batch, temperature=temperature, top_p=top_p, top_k=top_k, seed=seed + number
            )
            noise_seeds = range(seed, seed + images)
            pictures = decode_completions(policy, batch, tokens, noise_seeds, num_steps=steps, guidance_scale=guidance)
            drawn.append([Image.fromarray(picture) for picture in pictures.numpy()])
            bar.see(len(drawn))
    return drawn
