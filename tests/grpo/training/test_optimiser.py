"""Momenta and epsilon of AdamW, and the smallest learning rate: two steps computed again by hand."""

import math

import numpy as np
import pytest

from blip3o_grpo.training.trainer import ImageGRPOTrainer

NAME = "lm_head.weight"


@pytest.mark.parametrize(
    ("beta1", "beta2", "epsilon"), [(0.9, 0.999, 1e-8), (0.5, 0.9, 1e-8), (0.0, 0.99, 1e-2), (0.9, 0.999, 1e-15)]
)
def test_weights_after_two_steps_are_adamws(make_config, run_toy, beta1, beta2, epsilon):
    gradients, weights = [], []

    def see(trainer, norm):
        parameter = dict(trainer.model.named_parameters())[NAME]
        gradients.append(parameter.grad.double().numpy().copy())
        weights.append(parameter.detach().double().numpy().copy())

    section = {"max_steps": 2, "max_grad_norm": 1e9, "learning_rate": 1e-3}
    section |= {"adam_beta1": beta1, "adam_beta2": beta2, "adam_epsilon": epsilon}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ImageGRPOTrainer, "see_gradient_norm", see)
        trainer, *_ = run_toy(make_config(trainer=section))
    weights.append(trainer.model.state_dict()[NAME].double().numpy())
    first = second = np.zeros_like(gradients[0])
    for step, gradient in enumerate(gradients, start=1):
        first = beta1 * first + (1 - beta1) * gradient
        second = beta2 * second + (1 - beta2) * gradient**2
        mean, root = first / (1 - beta1**step), np.sqrt(second / (1 - beta2**step))
        moved = -1e-3 * mean / (root + epsilon)
        np.testing.assert_allclose(weights[step] - weights[step - 1], moved, atol=2e-7)
    assert np.abs(moved).max() > 1e-5


@pytest.mark.parametrize("end", [{"min_lr": 2e-4}, {"min_lr_rate": 0.2}], ids=str)
def test_the_learning_rate_falls_along_a_cosine_to_its_smallest_value(make_config, run_toy, end):
    section = {"max_steps": 4, "learning_rate": 1e-3, "lr_scheduler_type": "cosine_with_min_lr"}
    trainer, _, metrics = run_toy(make_config(trainer=section | {"lr_scheduler_kwargs": end}))
    fall = [(1 + math.cos(math.pi * step / 4)) / 2 for step in range(5)]
    expected = [2e-4 + 8e-4 * share for share in fall]
    assert [line["learning_rate"] for line in metrics] == pytest.approx(expected[:4])
    assert trainer.lr_scheduler.get_last_lr() == pytest.approx(expected[4:] * 2)
