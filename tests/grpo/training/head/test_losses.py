"""Losses of the head: hand-computed cases, and gradients against numerical differentiation."""

import pytest
import torch

from blip3o_grpo.training.head.flow_grpo import flow_grpo_loss
from blip3o_grpo.training.head.nft import nft_loss


def one(value):
    return torch.full((1, 1, 1, 1), float(value), dtype=torch.float64)


def nft(velocity, old=1.0, noisy=3.0, clean=1.0, level=0.5, advantage=0.0, beta=1.0, kl=0.0, reference=None):
    loss, metrics = nft_loss(
        velocity if torch.is_tensor(velocity) else one(velocity),
        one(old),
        None if reference is None else one(reference),
        one(noisy),
        one(clean),
        torch.tensor([level], dtype=torch.float64),
        torch.tensor([advantage], dtype=torch.float64),
        beta=beta,
        kl=kl,
    )
    return loss, metrics


@pytest.mark.parametrize(
    ("advantage", "expected"),
    [
        (5.0, 5.0),  # v+ = 2, x+ = 2, error 1, weight 1
        (50.0, 5.0),  # clipped
        (-5.0, 10.0),  # v- = 0, x- = 3, error 2, weight 2
        (0.0, 7.5),
    ],
)
def test_nft_by_hand(advantage, expected):
    assert nft(2.0, advantage=advantage)[0].item() == pytest.approx(expected)


def test_nft_with_a_small_beta_by_hand():
    # v+ = .9 + .2 = 1.1, x+ = 2.45, 1.45^2 / 1.45; v- = 1.1 - .2 = .9, x- = 2.55, 1.55; r = .7; 5 / .1
    assert nft(2.0, advantage=2.0, beta=0.1)[0].item() == pytest.approx(50 * (0.7 * 1.45 + 0.3 * 1.55))


def test_nft_keeps_near_the_reference():
    loss, metrics = nft(2.0, kl=0.5, reference=4.0)
    assert loss.item() == pytest.approx(7.5 + 0.5 * 4)
    assert metrics["head/kl"].item() == pytest.approx(4) and metrics["head/moved"].item() == pytest.approx(1)


def weighted(velocity, old, noisy, clean, level, advantage, beta, weights):
    """The loss with given weights, which have no gradient, as plain numbers."""
    share = advantage / 10 + 0.5
    errors = [
        (noisy - level * v - clean) for v in ((1 - beta) * old + beta * velocity, (1 + beta) * old - beta * velocity)
    ]
    return 5 / beta * (share * errors[0] ** 2 / weights[0] + (1 - share) * errors[1] ** 2 / weights[1])


@pytest.mark.parametrize("advantage", [-3.0, 0.0, 1.0, 4.0])
@pytest.mark.parametrize("beta", [0.1, 1.0, 2.0])
def test_nfts_gradient_is_the_numerical_one(advantage, beta):
    value, old, noisy, clean, level = 1.7, 1.2, 2.5, 0.4, 0.8
    velocity = one(value).requires_grad_()
    nft(velocity, old, noisy, clean, level, advantage, beta)[0].sum().backward()
    weights = [
        abs(noisy - level * v - clean) for v in ((1 - beta) * old + beta * value, (1 + beta) * old - beta * value)
    ]
    high, low = (weighted(value + d, old, noisy, clean, level, advantage, beta, weights) for d in (1e-6, -1e-6))
    assert velocity.grad.item() == pytest.approx((high - low) / 2e-6, rel=1e-5, abs=1e-7)


def test_where_nothing_has_moved_only_the_advantage_speaks():
    """v = v_old: towards the image with A > 0, away with A < 0, and no gradient at all with A = 0."""
    gradients = []
    for advantage in (2.0, 0.0, -2.0):
        velocity = one(1.0).requires_grad_()
        nft(velocity, old=1.0, advantage=advantage)[0].sum().backward()
        gradients.append(velocity.grad.item())
    towards = (3.0 - 1.0) / 0.5  # the velocity that ends at the image
    assert gradients[1] == pytest.approx(0, abs=1e-12)
    assert gradients[0] == pytest.approx(-gradients[2])
    assert (gradients[0] < 0) == (towards > 1.0)


def test_nft_of_an_image_that_is_met_exactly_is_finite():
    loss, _ = nft(4.0, old=4.0, advantage=1.0)
    assert loss.item() == 0


def test_nfts_rows_do_not_meet():
    generator = torch.Generator().manual_seed(0)
    v, old, noisy, clean = (torch.randn(3, 2, 4, 4, generator=generator) for _ in range(4))
    levels, advantages = torch.tensor([0.2, 0.5, 1.0]), torch.tensor([1.0, -1.0, 0.3])
    together, _ = nft_loss(v, old, None, noisy, clean, levels, advantages, beta=1.0, kl=0.0)
    for i in range(3):
        row = slice(i, i + 1)
        alone, _ = nft_loss(
            v[row], old[row], None, noisy[row], clean[row], levels[row], advantages[row], beta=1.0, kl=0.0
        )
        torch.testing.assert_close(alone, together[row])


def flow(new, old, advantage, moved=None, epsilon=0.1, kl=0.0):
    values = (torch.tensor([value], dtype=torch.float64) for value in (new, old, advantage))
    moved = None if moved is None else torch.tensor([moved], dtype=torch.float64)
    return flow_grpo_loss(*values, moved, epsilon=epsilon, kl=kl)


@pytest.mark.parametrize(
    ("ratio", "advantage", "expected"),
    [
        (1.0, 2.0, -2.0),
        (1.05, 2.0, -2.1),
        (1.5, 2.0, -2.2),  # clipped above
        (0.5, 2.0, -1.0),
        (0.5, -2.0, 1.8),  # clipped below
        (1.5, -2.0, 3.0),
        (1.0, 9.0, -5.0),  # the advantage is
    ],
)
def test_flow_grpo_by_hand(ratio, advantage, expected):
    loss, metrics = flow(torch.tensor(ratio).double().log().item(), 0.0, advantage)
    assert loss.item() == pytest.approx(expected)
    assert metrics["head/clip_ratio"].item() == float(abs(ratio - 1) > 0.1)


def test_flow_grpo_keeps_near_the_reference():
    assert flow(0.0, 0.0, 1.0, moved=3.0, kl=0.2)[0].item() == pytest.approx(-1 + 0.6)


@pytest.mark.parametrize("advantage", [-1.5, 2.0])
def test_flow_grpos_gradient_is_the_numerical_one(advantage):
    new = torch.tensor([-1.23], dtype=torch.float64, requires_grad=True)
    old, advantages = torch.tensor([-1.2], dtype=torch.float64), torch.tensor([advantage], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: flow_grpo_loss(x, old, advantages, None, epsilon=0.2, kl=0.0)[0], (new,))
