"""The model's numbers equal plain use of transformers and diffusers, alone and in left-padded batches."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from diffusers import FlowMatchEulerDiscreteScheduler

from blip3o_grpo.policies import image_logprobs


def test_hidden_states_of_a_padded_batch_equal_those_of_single_prompts(policy, written):
    ids, mask = written
    with torch.no_grad():
        together = policy.hidden_states(ids, mask)
        for row in range(len(ids)):
            alone = policy.ar.model(input_ids=ids[row : row + 1, mask[row].bool()]).last_hidden_state
            expected = alone[0, -policy.image_tokens.num_tokens - 1 :]
            torch.testing.assert_close(together[row], expected, atol=1e-5, rtol=0)


def test_hidden_states_start_at_the_scale_token(policy, written):
    ids, mask = written
    assert policy.hidden_states(ids, mask).shape == (3, policy.image_tokens.num_tokens + 1, policy.config.hidden_size)
    assert (ids[:, -policy.image_tokens.num_tokens - 1] == policy.config.scale_start_token_id).all()


def test_image_logprobs_are_the_full_softmax_renormalised_over_image_tokens(policy, written):
    ids, mask = written
    space, temperature = policy.image_tokens, 0.7
    with torch.no_grad():
        logprobs, entropy = image_logprobs(policy.ar, ids, mask, space, temperature, entropy=True)
        row = 1
        logits = policy.ar(input_ids=ids[row : row + 1, mask[row].bool()]).logits[0, -space.num_tokens - 1 : -1]
    logits = logits / temperature
    logits[:, : space.start] = -torch.inf
    expected = logits.log_softmax(-1)
    chosen = expected.gather(-1, ids[row, -space.num_tokens :, None])[:, 0]
    torch.testing.assert_close(logprobs[row], chosen, atol=1e-5, rtol=0)
    assert (entropy > 0).all() and (entropy <= torch.tensor(space.size).log() + 1e-4).all()


def test_noise_of_a_sample_depends_on_its_seed_only(policy):
    alone, together = policy.noise([7]), policy.noise([3, 7, 5])
    torch.testing.assert_close(alone[0], together[1], atol=0, rtol=0)


def test_denoising_equals_a_plain_guided_euler_loop(policy, written):
    hidden = policy.hidden_states(*written).detach()
    noise = policy.noise([1, 2, 3])
    scheduler = FlowMatchEulerDiscreteScheduler.from_config(policy.scheduler.config)
    scheduler.set_timesteps(sigmas=torch.linspace(1, 1 / 3, 3).tolist())
    latents = noise
    with torch.no_grad():
        for timestep in scheduler.timesteps:
            times = timestep.expand(3)
            conditional = policy.sana(latents, policy.connector(hidden), times).sample
            unconditional = policy.sana(latents, policy.connector(torch.zeros_like(hidden)), times).sample
            velocity = unconditional + 2.0 * (conditional - unconditional)
            latents = scheduler.step(velocity, timestep, latents).prev_sample
        expected = policy.vae.decode(latents / policy.vae.config.scaling_factor).sample
    decoded = policy.denoise(hidden, noise, num_steps=3, guidance_scale=2.0)
    torch.testing.assert_close(decoded, latents, atol=1e-5, rtol=0)
    expected = ((expected / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1)
    assert (policy.decode(hidden, noise, 3).int() - expected.int()).abs().max() <= 1


@pytest.mark.parametrize("interval", [(0.5, 1.0), (0.0, 0.5), (0.3, 0.7)])
def test_guidance_acts_between_its_noise_levels_only(policy, written, interval):
    """By hand, with diffusers' own scheduler: of three steps the levels are 1, 2/3 and 1/3."""
    hidden, noise = policy.hidden_states(*written).detach(), policy.noise([1, 2, 3])
    scheduler = FlowMatchEulerDiscreteScheduler.from_config(policy.scheduler.config)
    scheduler.set_timesteps(sigmas=[1.0, 2 / 3, 1 / 3])
    latents, with_caption, without = noise, policy.connector(hidden), policy.connector(torch.zeros_like(hidden))
    with torch.no_grad():
        for level, timestep in zip([1.0, 2 / 3, 1 / 3], scheduler.timesteps, strict=True):
            velocity = policy.sana(latents, with_caption, timestep.expand(3)).sample
            if interval[0] <= level <= interval[1]:
                unconditional = policy.sana(latents, without, timestep.expand(3)).sample
                velocity = unconditional + 2.0 * (velocity - unconditional)
            latents = scheduler.step(velocity, timestep, latents).prev_sample
    found = policy.denoise(hidden, noise, num_steps=3, guidance_interval=interval)
    torch.testing.assert_close(found, latents, atol=1e-5, rtol=0)


def test_guidance_of_one_skips_the_unconditional_branch(policy, written):
    hidden, noise = policy.hidden_states(*written).detach(), policy.noise([1, 2, 3])
    plain = policy.denoise(hidden, noise, num_steps=1, guidance_scale=1.0)
    with torch.no_grad():
        velocity = policy.sana(noise, policy.connector(hidden), torch.full((3,), 1000.0)).sample
    torch.testing.assert_close(plain, noise - velocity, atol=1e-5, rtol=0)


def test_connector_starts_with_the_released_norm(policy):
    assert F.mse_loss(policy.connector[3].weight, torch.full_like(policy.connector[3].weight, 5.5**0.5)) < 1e-9
