"""The work of a step by stage, each as the released code does it and as ours does; `bench_gpu.py` measures them.

As released: 16 rows at a time, sampling from the whole vocabulary, the connector in every step, latents in the head's
dtype, nothing compiled. Both decode latents one image at a time: 16 pictures of 1,024 px have activations of 2^31
values.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from blip3o_grpo.policies.blip3o_next.decoding import prepare_head
from blip3o_grpo.policies.blip3o_next.policy import BLIP3oNext
from blip3o_grpo.policies.blip3o_next.prefill import group_hidden_states
from blip3o_grpo.policies.blip3o_next.sampling import sample_image_tokens

RELEASED = "as released"
RELEASED_BATCH = 16
GUIDANCE = 2.0
WARM_UP_TOKENS = 8
CHUNKS = 4
"""Of all rollouts; one by itself shows what a call costs whatever it draws."""


@dataclass(frozen=True)
class Settings:
    """What is measured."""

    scale: float = 1.0
    device: str = "cuda"
    prompts: int = 16
    group_size: int = 16
    prompt_tokens: tuple[int, int] = (40, 60)
    """Shortest and longest prompt."""
    images_per_decode: int = 32
    steps: int = 30
    few_steps: int = 15
    rollouts: int = 8
    """Of one forward and backward pass."""
    repeats: int = 3
    compile: bool = True


DRY = Settings(
    scale=0.1,
    device="cpu",
    prompts=4,
    group_size=4,
    images_per_decode=8,
    steps=4,
    few_steps=2,
    rollouts=2,
    repeats=1,
    compile=False,
)


@dataclass(frozen=True)
class Way:
    """One way to do a stage's work."""

    name: str
    images: int
    """Of one call."""
    run: Callable[[], object]
    warm_up: Callable[[], object] | None = None
    """None: `run` itself."""


def make_prompts(policy: BLIP3oNext, settings: Settings) -> list[list[int]]:
    """Random prompts of different lengths that end in `<im_start><S0>`."""
    generator, (low, high) = torch.Generator().manual_seed(0), settings.prompt_tokens
    opening = [policy.config.image_start_tag_id, policy.config.scale_start_token_id]
    lengths = torch.randint(low, high + 1, (settings.prompts,), generator=generator).tolist()
    text = policy.config.image_start_tag_id
    return [
        torch.randint(0, text, (length - len(opening),), generator=generator).tolist() + opening for length in lengths
    ]


@torch.no_grad()
def generate_as_released(policy: BLIP3oNext, prompts: Sequence[list[int]], length: int) -> torch.Tensor:
    """`length` tokens by `transformers.generate`, with logits and draws over the whole vocabulary."""
    ids, mask = (tensor.to(policy.ar.device) for tensor in policy.prompts.pad(prompts))
    return policy.ar.generate(
        input_ids=ids,
        attention_mask=mask,
        do_sample=True,
        top_k=0,
        top_p=1.0,
        min_new_tokens=length,
        max_new_tokens=length,
        eos_token_id=None,
        pad_token_id=0,
    )


@torch.no_grad()
def decode_as_released(policy: BLIP3oNext, hidden: torch.Tensor, noise: torch.Tensor, num_steps: int) -> torch.Tensor:
    """The connector on zeros and hidden states in every step; latents in the head's dtype."""
    scheduler = FlowMatchEulerDiscreteScheduler.from_config(policy.scheduler.config)
    scheduler.set_timesteps(sigmas=torch.linspace(1, 1 / num_steps, num_steps).tolist(), device=noise.device)
    latents = noise.to(policy.sana.dtype)
    for timestep in scheduler.timesteps:
        condition = policy.connector(torch.cat([torch.zeros_like(hidden), hidden]))
        velocity = policy.sana(torch.cat([latents, latents]), condition, timestep.expand(len(condition))).sample
        without, with_condition = velocity.chunk(2)
        latents = scheduler.step(without + GUIDANCE * (with_condition - without), timestep, latents).prev_sample
    return policy.latents_to_images(latents)


def sampling(policy: BLIP3oNext, settings: Settings) -> list[Way]:
    """Image tokens of all rollouts at once, from the image rows alone, and of a quarter of them."""
    rows = [prompt for prompt in make_prompts(policy, settings) for _ in range(settings.group_size)]
    few, chunk = rows[:RELEASED_BATCH], rows[: max(1, len(rows) // CHUNKS)]
    generate = partial(generate_as_released, policy, few)
    warm_up = partial(generate, WARM_UP_TOKENS)
    return [
        Way(RELEASED, len(few), partial(generate, policy.image_tokens.num_tokens), warm_up),
        Way("ours", len(rows), partial(sample_image_tokens, policy, rows), warm_up),
        Way("ours, one chunk", len(chunk), partial(sample_image_tokens, policy, chunk), warm_up),
    ]


def prefill(policy: BLIP3oNext, settings: Settings) -> list[Way]:
    """Hidden states of sampled tokens: prompts repeated, in larger batches, and read once per group."""
    size, space = settings.group_size, policy.image_tokens
    prompts = make_prompts(policy, settings)[: max(1, settings.images_per_decode // size)]
    tokens = torch.randint(space.start, space.stop, (len(prompts) * size, space.num_tokens), device=settings.device)
    few_ids, few_mask = policy.prompts.pad(prompts)
    few_ids, few_mask = few_ids.to(settings.device), few_mask.to(settings.device)
    ids = torch.cat([few_ids.repeat_interleave(size, 0), tokens], 1)
    mask = torch.cat([few_mask.repeat_interleave(size, 0), torch.ones_like(tokens)], 1)
    part = min(RELEASED_BATCH, len(tokens))
    hidden_states = torch.no_grad()(policy.hidden_states)
    return [
        Way(RELEASED, part, partial(hidden_states, ids[:part], mask[:part])),
        Way("ours: larger batch", len(tokens), partial(hidden_states, ids, mask)),
        Way(
            "prompt once per group",
            len(tokens),
            partial(torch.no_grad()(group_hidden_states), policy.ar, few_ids, few_mask, tokens, [size] * len(prompts)),
        ),
    ]


def decoding(policy: BLIP3oNext, settings: Settings) -> list[Way]:
    """Images of hidden states: as released, ours as it is, and ours compiled with channels-last convolutions."""
    shape = (settings.images_per_decode, policy.image_tokens.num_tokens + 1, policy.config.hidden_size)
    hidden = torch.randn(shape, device=settings.device, dtype=policy.sana.dtype)
    noise = policy.noise(range(len(hidden)))
    prepare_head(policy, vae_slicing=True)

    def way(name: str, decode: Callable, images: int, num_steps: int) -> Way:
        call = partial(decode, hidden[:images], noise[:images])
        return Way(name, images, partial(call, num_steps), partial(call, 1))

    part, ours = min(RELEASED_BATCH, len(hidden)), {"ours": policy}
    if settings.compile:
        ours["compiled"] = copy.deepcopy(policy, {id(policy.ar): policy.ar})
        prepare_head(ours["compiled"], compile=True, channels_last=True)
    return [way(RELEASED, partial(decode_as_released, policy), part, settings.steps)] + [
        way(f"{name}, {num_steps} steps", head.decode, len(hidden), num_steps)
        for name, head in ours.items()
        for num_steps in (settings.steps, settings.few_steps)
    ]
