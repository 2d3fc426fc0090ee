"""Noisy steps of the flow sampler: coefficients against a Gaussian whose samplers' spread is known, and densities."""

import math

import pytest
import torch

from blip3o_grpo.configs.head import FlowGRPOSection
from blip3o_grpo.policies import BLIP3oNext
from blip3o_grpo.policies.blip3o_next.denoising import denoise, guided_steps, path_noise, sampler, velocity
from blip3o_grpo.policies.blip3o_next.stochastic import noisy_step, step_logprob
from blip3o_grpo.policies.tiny_world.architecture import random_policy

SHIFT = 3.0


def sigmas(num_steps):
    plain = [*(1 - (1 - 1 / num_steps) * i / (num_steps - 1) for i in range(num_steps)), 0.0]
    return [SHIFT * s / (1 + (SHIFT - 1) * s) for s in plain]


def final_spread(num_steps, data_std, window, kind="sde", noise_level=0.7):
    """Standard deviation of what the sampler paints for data N(0, data_std^2) and its exact velocity, which is linear:
    a latent of 1 and the step's own noise say everything."""
    how, levels, variance = (
        FlowGRPOSection(type="flow_grpo", sampler=kind, noise_level=noise_level),
        sigmas(num_steps),
        1.0,
    )
    for i, (s, t) in enumerate(zip(levels, levels[1:], strict=False)):
        one = torch.ones(1, 1, 1, 1, dtype=torch.float64)
        v = one * (s - (1 - s) * data_std**2) / ((1 - s) ** 2 * data_std**2 + s**2)
        mean, std = noisy_step(one, v, s, t, how) if i in window else (one + v * (t - s), 0.0)
        variance = variance * mean.item() ** 2 + std**2
    return math.sqrt(variance)


@pytest.mark.parametrize(
    ("num_steps", "data_std", "window", "expected"),
    [
        (30, 1.0, range(0), 0.942),
        (30, 1.0, range(30), 0.968),
        (30, 1.0, range(3), 0.989),
        (10, 0.2, range(0), 0.098),
        (10, 0.2, range(10), 0.206),  # twice the noise that the data has: of the last step
        (10, 0.2, range(9), 0.122),
        (10, 0.2, range(3), 0.106),
    ],
)
def test_the_spread_of_a_gaussian_is_the_known_one(num_steps, data_std, window, expected):
    assert final_spread(num_steps, data_std, window) == pytest.approx(expected, abs=2e-3)


def test_many_short_steps_paint_the_data():
    for kind in ("sde", "cps"):
        assert final_spread(3000, 0.5, range(500, 2000), kind) == pytest.approx(0.5, abs=0.01)


def test_coefficients_preserving_steps_keep_the_noise_of_the_level():
    """A latent of x0 and e becomes (1 - t) x0 and noise of standard deviation t, whatever eta."""
    how = FlowGRPOSection(type="flow_grpo", sampler="cps", noise_level=0.8)
    x0, e, s, t = torch.full((1, 1, 1, 1), 2.0), torch.full((1, 1, 1, 1), 3.0), 0.8, 0.5
    mean, std = noisy_step((1 - s) * x0 + s * e, e - x0, s, t, how)
    kept = ((mean - (1 - t) * x0) / e).item()
    assert kept**2 + std**2 == pytest.approx(t**2)


@pytest.mark.parametrize("kind", ["sde", "cps"])
def test_a_little_noise_is_nearly_eulers_step(kind):
    x, v = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    mean, std = noisy_step(x, v, 0.9, 0.6, FlowGRPOSection(type="flow_grpo", sampler=kind, noise_level=1e-4))
    torch.testing.assert_close(mean, x - 0.3 * v, atol=1e-6, rtol=1e-6)
    assert 0 < std < 1e-3


def test_log_probabilities_are_those_of_torch():
    after, mean = torch.randn(3, 2, 4, 4), torch.randn(3, 2, 4, 4)
    expected = torch.distributions.Normal(mean, 0.37).log_prob(after).flatten(1).mean(1)
    torch.testing.assert_close(step_logprob(after, mean, 0.37), expected)


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    return BLIP3oNext.from_pretrained(random_policy(tmp_path_factory.mktemp("policy"), num_image_tokens=16))


@pytest.fixture
def hidden(policy):
    return torch.randn(
        3, policy.image_tokens.num_tokens + 1, policy.config.hidden_size, generator=torch.Generator().manual_seed(0)
    )


def test_the_path_repeats_and_does_not_depend_on_the_batch(policy, hidden):
    how = FlowGRPOSection(type="flow_grpo", window=2)
    noise = path_noise(policy, [5, 6, 7], how)
    path = denoise(policy, hidden, noise, 4, stochastic=how)
    assert path.shape[:2] == (3, 4)  # the first latents, two noisy steps, the last latents
    torch.testing.assert_close(path[:, 0], policy.noise([5, 6, 7]))
    alone = denoise(policy, hidden[1:2], path_noise(policy, [6], how), 4, stochastic=how)
    torch.testing.assert_close(alone[0], path[1], atol=1e-5, rtol=1e-5)


def test_without_noisy_steps_the_path_is_the_picture(policy, hidden):
    noise = path_noise(policy, [5, 6, 7], None)
    found = denoise(policy, hidden, noise, 3)
    assert found.shape[1] == 1
    torch.testing.assert_close(found[:, 0], policy.denoise(hidden, noise[:, 0], 3))


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_the_learnt_velocity_is_the_samplers(policy, hidden, scale):
    """One Euler step from noise to picture is noise minus the velocity there."""
    noise = policy.noise([1, 2, 3])
    steps = sampler(policy, 1)
    guided = torch.ones(3, dtype=torch.bool)
    with torch.no_grad():
        found = velocity(policy, hidden, noise, steps.timesteps.expand(3), guided, scale)
    torch.testing.assert_close(noise - found, policy.denoise(hidden, noise, 1, scale), atol=1e-5, rtol=1e-5)


def test_decoder_and_learner_agree_on_the_steps_log_probabilities(policy, hidden):
    how = FlowGRPOSection(type="flow_grpo", window=1)
    noise = path_noise(policy, [5, 6, 7], how)
    path, steps = denoise(policy, hidden, noise, 2, stochastic=how), sampler(policy, 2)
    with torch.no_grad():
        found = velocity(
            policy, hidden, path[:, 0], steps.timesteps[:1].expand(3), torch.ones(3, dtype=torch.bool), 2.0
        )
    mean, std = noisy_step(path[:, 0], found, steps.sigmas[0].item(), steps.sigmas[1].item(), how)
    ours = step_logprob(path[:, 1], mean, std)
    drawn = step_logprob(std * noise[:, 1], torch.zeros_like(mean), std)
    assert (ours - drawn).abs().max() < 1e-4


def test_guidance_at_the_very_end_of_its_interval_acts_alike_wherever_it_is_asked(policy):
    """0.1 is no float32: learner and decoder must not round it apart."""
    steps = sampler(policy, 10)
    assert guided_steps(steps, 2.0, (0.0, 0.1)) == [False] * 9 + [True]
    assert guided_steps(steps, 2.0, (0.55, 1.0)) == [True] * 5 + [False] * 5
    assert guided_steps(steps, 2.0, (0.7, 1.0)) == [True] * 4 + [False] * 6  # whatever 0.7 is in float32
    assert guided_steps(steps, 1.0, (0.0, 1.0)) == [False] * 10
