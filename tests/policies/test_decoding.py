"""Painting: groups share their prompt, options change no image, and bfloat16 keeps float32 where it counts."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from blip3o_grpo.policies import BLIP3oNext
from blip3o_grpo.policies.blip3o_next.decoding import prepare_head
from blip3o_grpo.policies.blip3o_next.prefill import completion_hidden_states, group_hidden_states

PROMPTS = ["a sign", 'a red sign that says "TAXI"', "a photo of two blue circles and a very long afterthought"]
SIZES = [3, 1, 2]


@pytest.fixture(scope="module", params=["tiny", "scaled"])
def model(request: pytest.FixtureRequest, folder: Path, scaled: Path) -> BLIP3oNext:
    """A tiny policy, and the released one scaled down (grouped-query attention, EfficientViT blocks)."""
    return BLIP3oNext.from_pretrained({"tiny": folder, "scaled": scaled}[request.param])


def draw(model: BLIP3oNext, num: int) -> torch.Tensor:
    space, generator = model.image_tokens, torch.Generator().manual_seed(0)
    return torch.randint(space.start, space.stop, (num, space.num_tokens), generator=generator)


@torch.no_grad()
def test_groups_that_share_their_prompt_have_the_hidden_states_of_single_rows(model):
    """Left-padded prompts of different lengths, groups of different sizes."""
    prompts, tokens = [model.prompts.encode(prompt) for prompt in PROMPTS], draw(model, sum(SIZES))
    shared = group_hidden_states(model.ar, *model.prompts.pad(prompts), tokens, SIZES)
    rows = [prompt for prompt, size in zip(prompts, SIZES, strict=True) for _ in range(size)]
    for row, prompt in enumerate(rows):
        ids = torch.tensor([[*prompt, *tokens[row].tolist()]])
        alone = model.hidden_states(ids, torch.ones_like(ids))
        torch.testing.assert_close(shared[row : row + 1], alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("shared", [True, False])
@torch.no_grad()
def test_a_prompt_is_read_once_per_group_unless_it_is_short(model, shared, monkeypatch):
    monkeypatch.setattr("blip3o_grpo.policies.blip3o_next.prefill.SHARED_FROM", 0.25 if shared else 1000)
    prompts, tokens = [model.prompts.encode(prompt) for prompt in PROMPTS], draw(model, sum(SIZES))
    rows = [prompt for prompt, size in zip(prompts, SIZES, strict=True) for _ in range(size)]
    seen, longest = [], max(map(len, prompts))
    hook = model.ar.model.embed_tokens.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape)))
    found = completion_hidden_states(model, rows, tokens)
    hook.remove()
    together = [(len(rows), longest + tokens.shape[1])]
    assert seen == ([(len(prompts), longest), tuple(tokens.shape)] if shared else together)
    ids, mask = model.prompts.pad([[*row, *drawn] for row, drawn in zip(rows, tokens.tolist(), strict=True)])
    torch.testing.assert_close(found, model.hidden_states(ids, mask), atol=1e-5, rtol=0)


@torch.no_grad()
def test_conditions_are_computed_once_and_both_branches_in_one_batch(model):
    """Whatever the number of steps: one connector call for the images, one for a single zero vector."""
    hidden, noise, calls = torch.randn(2, model.image_tokens.num_tokens + 1, model.config.hidden_size), [], []
    noise = model.noise([1, 2])
    hooks = [
        model.connector.register_forward_pre_hook(lambda _, inputs: calls.append(("connector", inputs[0].shape[:2]))),
        model.sana.register_forward_pre_hook(
            lambda _, __, named: calls.append(("head", len(named["hidden_states"]))), with_kwargs=True
        ),
    ]
    model.denoise(hidden, noise, num_steps=3)
    for hook in hooks:
        hook.remove()
    assert calls == [("connector", (1, 1)), ("connector", hidden.shape[:2]), *[("head", 4)] * 3]


@torch.no_grad()
def test_a_bfloat16_head_keeps_noise_latents_and_pixels_in_float32(model):
    hidden = torch.randn(2, model.image_tokens.num_tokens + 1, model.config.hidden_size)
    noise, low, seen = model.noise([1, 2]), copy.deepcopy(model).bfloat16(), []
    hook = low.sana.register_forward_pre_hook(
        lambda _, __, named: seen.append((named["hidden_states"].dtype, named["timestep"].dtype)), with_kwargs=True
    )
    latents = low.denoise(hidden.bfloat16(), low.noise([1, 2]), num_steps=8)
    hook.remove()
    assert seen == [(torch.bfloat16, torch.float32)] * 8
    assert torch.equal(low.noise([1, 2]), noise) and latents.dtype == torch.float32
    expected = model.denoise(hidden, noise, num_steps=8)
    assert (latents - expected).abs().mean() < 0.1 * expected.std()
    pixels = low.latents_to_pixels(latents)
    assert pixels.dtype == torch.float32
    assert (pixels - model.latents_to_pixels(latents)).abs().mean() < 0.02


@pytest.mark.parametrize("option", ["channels_last", "vae_slicing"])
@torch.no_grad()
def test_options_change_no_image(model, option):
    hidden = torch.randn(2, model.image_tokens.num_tokens + 1, model.config.hidden_size)
    noise = model.noise([1, 2])
    expected = model.latents_to_pixels(model.denoise(hidden, noise, num_steps=2))
    prepared = prepare_head(copy.deepcopy(model), **{option: True})
    found = prepared.latents_to_pixels(prepared.denoise(hidden, noise, num_steps=2))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert prepared.state_dict().keys() == model.state_dict().keys()


@pytest.mark.slow
@torch.no_grad()
def test_a_compiled_head_paints_the_same(folder):
    """Needs a C++ compiler; minutes. Weights loaded afterwards count: compilation renames nothing."""
    model = BLIP3oNext.from_pretrained(folder)
    hidden = torch.randn(2, model.image_tokens.num_tokens + 1, model.config.hidden_size)
    noise, compiled = model.noise([1, 2]), prepare_head(copy.deepcopy(model), compile=True)
    assert compiled.state_dict().keys() == model.state_dict().keys()
    expected, found = (head.latents_to_pixels(head.denoise(hidden, noise, num_steps=2)) for head in (model, compiled))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
