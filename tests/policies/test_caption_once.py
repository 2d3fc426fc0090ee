"""Captions read once per image: the same velocities and latents as diffusers' own cross-attention, for less work."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from blip3o_grpo.policies import BLIP3oNext
from blip3o_grpo.policies.blip3o_next.caption_once import captions_read_once, distinct_rows


@pytest.fixture(scope="module", params=["tiny", "scaled"])
def model(request: pytest.FixtureRequest, folder: Path, scaled: Path) -> BLIP3oNext:
    """A tiny policy, and the released one scaled down (normalised keys, grouped-query attention)."""
    return BLIP3oNext.from_pretrained({"tiny": folder, "scaled": scaled}[request.param])


def hidden_states(model: BLIP3oNext, num: int) -> torch.Tensor:
    shape = (num, model.image_tokens.num_tokens + 1, model.config.hidden_size)
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def plain_denoise(model: BLIP3oNext, hidden: torch.Tensor, noise: torch.Tensor, steps: int, scale: float):
    """Guided Euler steps as a diffusers pipeline takes them: both branches whole, in every step."""
    scheduler = FlowMatchEulerDiscreteScheduler.from_config(model.scheduler.config)
    scheduler.set_timesteps(sigmas=torch.linspace(1, 1 / steps, steps).tolist())
    condition = torch.cat([model.connector(torch.zeros_like(hidden)), model.connector(hidden)])
    latents = noise
    for number, timestep in enumerate(scheduler.timesteps):
        both = torch.cat([latents, latents])
        velocity = model.sana(both, condition, timestep.to(both.dtype).expand(len(both))).sample
        without, with_condition = velocity.chunk(2)
        step = (scheduler.sigmas[number + 1] - scheduler.sigmas[number]).to(both.dtype)
        latents = latents + step * (without + scale * (with_condition - without))
    return latents


@pytest.mark.parametrize("unconditional", [0, 1, 3])
@torch.no_grad()
def test_a_velocity_is_that_of_diffusers_own_cross_attention(model, unconditional):
    """Without guidance, with guidance, and with fewer unconditional rows than conditional ones."""
    condition, timestep = model.connector(hidden_states(model, 3)), torch.tensor(700.0)
    nothing = model.connector(torch.zeros(1, 1, model.config.hidden_size))
    latents = model.noise(range(unconditional + 3))
    captions = torch.cat([nothing.expand(unconditional, condition.shape[1], -1), condition])
    expected = model.sana(latents, captions, timestep.expand(len(latents))).sample
    with captions_read_once(model.sana, condition, nothing if unconditional else None) as velocity:
        found = velocity(latents, timestep)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("seeds", [[1, 2, 3, 4], [1, 1, 2, 2], [7, 8, 7, 7]], ids=["own", "groups", "mixed"])
@torch.no_grad()
def test_latents_are_as_near_to_double_precision_as_plain_steps_are(model, seeds):
    """Rounding that guided steps amplify is not counted against either."""
    hidden, noise = hidden_states(model, len(seeds)), model.noise(seeds)
    exact = plain_denoise(copy.deepcopy(model).double(), hidden.double(), noise.double(), 4, 2.0)
    plain = (plain_denoise(model, hidden, noise, 4, 2.0) - exact).abs().max()
    assert (model.denoise(hidden, noise, 4, 2.0) - exact).abs().max() < 3 * plain + 1e-5


@torch.no_grad()
def test_keys_and_values_are_computed_once_and_equal_noise_has_one_first_unconditional_row(model):
    keys, rows = [], []
    attention = model.sana.transformer_blocks[0].attn2
    hooks = [
        attention.to_k.register_forward_pre_hook(lambda _, inputs: keys.append(len(inputs[0]))),
        model.sana.register_forward_pre_hook(
            lambda _, __, named: rows.append(len(named["hidden_states"])), with_kwargs=True
        ),
    ]
    model.denoise(hidden_states(model, 4), model.noise([5, 5, 6, 6]), num_steps=3)
    for hook in hooks:
        hook.remove()
    assert keys == [4] and rows == [6, 8, 8]


@torch.no_grad()
def test_the_head_has_its_own_processors_afterwards_also_after_a_failure(model):
    own = model.sana.attn_processors
    condition = model.connector(hidden_states(model, 1))
    with pytest.raises(RuntimeError), captions_read_once(model.sana, condition, None) as velocity:
        velocity(torch.zeros(1, model.sana.config.in_channels + 1, 4, 4), torch.tensor(1.0))
    assert model.sana.attn_processors == own


def test_distinct_rows_name_the_first_of_each_kind():
    noise = torch.tensor([3.0, 1.0, 3.0, 2.0, 1.0]).view(5, 1, 1, 1)
    first, which = distinct_rows(noise)
    assert torch.equal(noise[first][which], noise)
    assert sorted(first.tolist()) == [0, 1, 3]
