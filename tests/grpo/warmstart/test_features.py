"""BLIP3-o's supervised losses against values written out, and what each way of training moves."""

import pytest
import torch

from blip3o_grpo.policies.blip3o.policy import BLIP3o
from blip3o_grpo.policies.tiny_world.blip3o import random_blip3o
from blip3o_grpo.warmstart.features import draw_feature_batch, feature_loss, regress

QUERIES = 3


@pytest.fixture
def policy(tmp_path):
    return BLIP3o.from_pretrained(random_blip3o(tmp_path, num_queries=QUERIES))


def batch_of(policy, seed=0, dropout=0.5, num=16):
    prompts = [policy.prompts.encode(text) for text in ("a star", "a photo of two blue circles")]
    features = torch.arange(2.0).view(2, 1, 1, 1).expand(2, 32, 7, 7)
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randint(2, (num,), generator=generator)
    return rows, draw_feature_batch(policy, prompts, features, rows, dropout=dropout, generator=generator)


class Recorded(torch.nn.Module):
    """In the place of the transformer: notes what it is given and says a constant velocity."""

    def __init__(self, dit):
        super().__init__()
        self.config = dit.config

    def forward(self, hidden_states, timestep, encoder_hidden_states):
        self.given = hidden_states, timestep, encoder_hidden_states
        return type("Output", (), {"sample": torch.full_like(hidden_states, 0.5)})


def test_a_batch_pairs_captions_with_their_features(policy):
    rows, batch = batch_of(policy)
    assert torch.equal(batch.features[:, 0, 0, 0], rows.float())
    lengths = torch.tensor([len(policy.prompts.encode(text)) for text in ("a star", "a photo of two blue circles")])
    assert torch.equal(batch.mask.sum(1), lengths[rows])
    assert 0 < batch.conditioned.sum() < len(rows)
    assert batch.levels.min() >= 0 and batch.levels.max() < 1000 and len(set(batch.levels.tolist())) > 8
    again = batch_of(policy)[1]
    assert torch.equal(again.noise, batch.noise) and torch.equal(again.levels, batch.levels)


def test_flow_matching_is_the_error_of_noise_minus_features(policy):
    _, batch = batch_of(policy)
    policy.dit = Recorded(policy.dit)
    expected = (0.5 - (batch.noise - batch.features)).square().mean()
    torch.testing.assert_close(feature_loss(policy, batch, "flow"), expected)
    noisy, timesteps, seen = policy.dit.given
    level = (1000 - batch.levels).float()
    torch.testing.assert_close(timesteps, level)
    s = (level / 1000).view(-1, 1, 1, 1)
    torch.testing.assert_close(noisy, (1 - s) * batch.features + s * batch.noise)
    nothing = policy.connector(torch.zeros(1, QUERIES, 128))
    for row, conditioned in enumerate(batch.conditioned.tolist()):
        assert torch.allclose(seen[row], nothing[0], atol=1e-6) != conditioned


def test_mse_is_the_error_of_one_step_from_zeros(policy):
    _, batch = batch_of(policy)
    policy.dit = Recorded(policy.dit)
    torch.testing.assert_close(feature_loss(policy, batch, "mse"), (-0.5 - batch.features).square().mean())
    noisy, timesteps, _ = policy.dit.given
    assert not noisy.any() and (timesteps == 1000).all()


def test_regression_is_one_unguided_euler_step_from_zeros(policy):
    with torch.no_grad():
        for value in policy.dit.parameters():
            value.add_(0.05)
        condition = torch.randn(2, QUERIES, 128)
        step = policy.denoise(condition, torch.zeros(2, 32, 7, 7), num_steps=1, guidance_scale=1.0)
        torch.testing.assert_close(regress(policy, condition), step)


@pytest.mark.parametrize("kind", ["flow", "mse"])
@pytest.mark.parametrize("joint", [False, True])
def test_only_a_joint_loss_reaches_the_ar_part(policy, kind, joint):
    """The queries learn in both: the gradient goes through the frozen AR part to them."""
    with torch.no_grad():
        for value in policy.dit.parameters():
            value.add_(0.05)
    policy.ar.requires_grad_(joint)
    feature_loss(policy, batch_of(policy, dropout=0.0)[1], kind).backward()
    assert policy.latent_queries.grad.abs().sum() > 0
    assert policy.connector[0].weight.grad.abs().sum() > 0
    assert all((value.grad is not None) == joint for value in policy.ar.layers.parameters())
