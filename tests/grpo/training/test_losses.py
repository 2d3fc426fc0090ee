"""Every option of the loss acts as its formula says: gradients of log-probs and entropies, computed again by hand.

Two updates follow each batch, so the ratio of the second one is not 1; with a learning rate that makes it large enough
for every bound to be reached.
"""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from blip3o_grpo.training.trainer import ImageGRPOTrainer

SECTION = {
    "max_steps": 2,
    "num_iterations": 2,
    "beta": 0.0,
    "learning_rate": 1e-2,
    "mismatch_bound": 1.0,
}
NOISE = np.random.default_rng(0).normal(0, 0.05, (4, 49))
"""What the sampler's log-probs are off by, so that the correction for it has weights."""


@pytest.fixture(scope="module")
def learnt(make_config, run_toy):
    """What each update computed: inputs, log-probs, entropies, loss, and gradients of the loss with respect to both."""

    def run(shift=NOISE, **section):
        records, computed, scored = [], ImageGRPOTrainer._compute_loss, ImageGRPOTrainer.logprobs
        last = []

        def score(self, *args, **kwargs):
            last[:] = scored(self, *args, **kwargs)
            return tuple(last)

        def compute(self, model, inputs):
            loss = computed(self, model, inputs)
            gradients = torch.autograd.grad(loss, last, retain_graph=True, allow_unused=True)
            shape = last[0].shape
            records.append(
                SimpleNamespace(
                    advantages=array(inputs["advantages"])[:, None],
                    old=array(inputs.get("old_per_token_logps", last[0])),
                    sampler=array(inputs["sampling_per_token_logps"]),
                    reference=array(inputs["ref_per_token_logps"]) if self.beta else None,
                    weights=np.broadcast_to(array(inputs["importance_sampling_ratio"]), shape),
                    logprobs=array(last[0]),
                    entropies=array(last[1]),
                    loss=loss.item(),
                    gradient=array(gradients[0]),
                    entropy_gradient=np.zeros(shape) if gradients[1] is None else array(gradients[1]),
                )
            )
            return loss

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ImageGRPOTrainer, "logprobs", score)
            patch.setattr(ImageGRPOTrainer, "_compute_loss", compute)
            trainer, _, metrics = run_toy(make_config(trainer=SECTION | section), shift=shift)
        for record, line in zip(records, metrics, strict=True):
            record.ratio = np.exp(record.logprobs - record.old)
            record.metrics = line
        return records, trainer

    return run


def array(tensor):
    return tensor.detach().double().numpy().copy()


def agree(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


def share(record, count=True):
    return float(np.mean(np.broadcast_to(count, record.gradient.shape)))


def test_the_first_update_has_ratio_1_and_the_second_has_not(learnt):
    (first, second), _ = learnt()
    np.testing.assert_array_equal(first.ratio, 1.0)
    np.testing.assert_array_equal(second.old, first.logprobs)
    np.testing.assert_array_equal(second.weights, first.weights)
    assert np.abs(second.ratio - 1).max() > 0.5
    agree(first.gradient, -first.advantages * first.weights / first.gradient.size)


@pytest.mark.parametrize("loss_type", ["grpo", "dapo", "dr_grpo", "bnpo"])
def test_the_ratio_is_clipped_on_both_sides(learnt, loss_type):
    (_, found), _ = learnt(loss_type=loss_type, epsilon=0.1, epsilon_high=0.3)
    positive = found.advantages > 0
    clipped = np.where(positive, found.ratio > 1.3, found.ratio < 0.9)
    assert 0.02 < share(found, clipped) < 0.98
    expected = -found.advantages * found.ratio * found.weights / found.gradient.size
    agree(found.gradient, np.where(clipped, 0.0, expected))
    low = share(found, (found.ratio < 0.9) & ~positive & (found.advantages < 0))
    assert found.metrics["clip_ratio/low_mean"] == pytest.approx(low, abs=1e-6)
    assert found.metrics["clip_ratio/high_mean"] == pytest.approx(share(found, (found.ratio > 1.3) & positive))


def test_delta_bounds_the_ratio_of_negative_advantages(learnt):
    (_, found), _ = learnt(delta=1.5)
    positive, ratio = found.advantages > 0, found.ratio
    bound = np.where(positive, ratio > 1.2, (ratio < 0.8) | (ratio > 1.5))
    assert share(found, (found.advantages < 0) & (ratio > 1.5)) > 0.005
    agree(found.gradient, np.where(bound, 0.0, -found.advantages * ratio * found.weights / found.gradient.size))


def test_ratios_of_whole_images(learnt):
    """GSPO: the geometric mean of an image's ratios, so that all its tokens share one factor and one clip."""
    (_, found), _ = learnt(importance_sampling_level="sequence", epsilon=0.01, epsilon_high=0.02)
    ratio = np.exp((found.logprobs - found.old).mean(1, keepdims=True))
    clipped = np.where(found.advantages > 0, ratio > 1.02, ratio < 0.99)
    assert 0 < clipped.mean() < 1
    factor = found.weights.mean(1, keepdims=True)  # the derivative of the mean log-ratio is 1 / T for each token
    expected = -found.advantages * ratio * factor / found.gradient.size
    agree(found.gradient, np.broadcast_to(np.where(clipped, 0.0, expected), found.gradient.shape))


def test_cispo_caps_the_ratio_and_keeps_every_gradient(learnt):
    (_, found), _ = learnt(loss_type="cispo", epsilon_high=1.1)
    capped = np.minimum(found.ratio, 1.1)
    assert 0.02 < share(found, found.ratio > 1.1) < 0.98
    agree(found.gradient, -found.advantages * capped * found.weights / found.gradient.size)
    high = share(found, (found.ratio > 1.1) & (found.advantages > 0))
    assert found.metrics["cispo_clip_ratio"] == pytest.approx(high)


def test_sapo_bounds_the_ratio_softly_with_a_temperature_for_each_sign(learnt):
    (_, found), _ = learnt(loss_type="sapo", sapo_temperature_pos=2.0, sapo_temperature_neg=6.0)
    temperature = np.where(found.advantages > 0, 2.0, 6.0)
    gate = 1 / (1 + np.exp(-temperature * (found.ratio - 1)))
    agree(found.gradient, -found.advantages * 4 * gate * (1 - gate) * found.ratio * found.weights / found.gradient.size)
    assert found.loss == pytest.approx(
        np.mean(-found.advantages * 4 / temperature * gate * found.weights), rel=1e-3, abs=1e-5
    )


def test_luspo_is_the_loss_of_whole_images_times_their_length(learnt):
    gspo = {"importance_sampling_level": "sequence", "epsilon": 0.01}
    (first, _), _ = learnt(loss_type="grpo", **gspo)
    (found, second), _ = learnt(loss_type="luspo", **gspo)
    agree(found.gradient, 49 * first.gradient)
    ratio = np.exp((second.logprobs - second.old).mean(1, keepdims=True))
    clipped = np.where(second.advantages > 0, ratio > 1.01, ratio < 0.99)
    expected = -second.advantages * ratio * second.weights.mean(1, keepdims=True) / len(ratio)
    agree(second.gradient, np.broadcast_to(np.where(clipped, 0.0, expected), second.gradient.shape))


def test_vespo_weighs_images_by_a_gamma_function_of_their_whole_ratio(learnt):
    """The ratio to the sampler, as far as the cut weights let it through; it is a factor and has no gradient."""
    options = {"vespo_k_pos": 0.2, "vespo_lambda_pos": 0.3, "vespo_k_neg": 0.1, "vespo_lambda_neg": 0.4}
    (_, found), _ = learnt(loss_type="vespo", learning_rate=1e-3, **options)
    log_w = (found.logprobs - found.old + np.log(found.weights)).sum(1, keepdims=True)
    k, rate = (np.where(found.advantages >= 0, *pair) for pair in ((0.2, 0.1), (0.3, 0.4)))
    phi = np.exp(rate + k * log_w - rate * np.exp(log_w))
    assert phi.min() < 0.9 and np.ptp(phi) > 0.05
    agree(found.gradient, np.broadcast_to(-phi * found.advantages / found.gradient.size, found.gradient.shape))
    assert found.metrics["vespo/phi_seq_mean"] == pytest.approx(phi.mean(), rel=1e-3)


def test_images_far_from_their_sampler_are_masked_if_their_advantage_is_negative(learnt):
    plain, _ = learnt()
    drift = (plain[1].sampler - plain[1].logprobs).mean(1, keepdims=True)
    threshold = float(np.median(drift[plain[1].advantages < 0]))
    assert threshold > 0
    (_, found), _ = learnt(off_policy_mask_threshold=threshold)
    drift = (found.sampler - found.logprobs).mean(1, keepdims=True)
    dropped = (found.advantages < 0) & (drift > threshold)
    assert 0 < dropped.mean() < 0.5
    np.testing.assert_array_equal(found.gradient[dropped[:, 0]], 0.0)
    positive = found.advantages > 0
    clipped = np.where(positive, found.ratio > 1.2, found.ratio < 0.8)
    expected = -found.advantages * found.ratio * found.weights / found.gradient.size
    agree(found.gradient, np.where(clipped | dropped, 0.0, expected))


def test_only_tokens_of_the_highest_entropy_are_learnt_from_and_the_kl_keeps_all(learnt):
    (found, _), _ = learnt(top_entropy_quantile=0.25)
    top = found.entropies >= np.quantile(found.entropies, 0.75)
    assert share(found, top) == pytest.approx(0.25, abs=0.01)
    agree(found.gradient, np.where(top, -found.advantages * found.weights / found.gradient.size, 0.0))
    (_, with_kl), _ = learnt(top_entropy_quantile=0.25, beta=0.5)
    assert (with_kl.gradient != 0).mean() > 0.9


@pytest.mark.parametrize("corrected", [True, False])
def test_the_gradient_of_the_kl_with_and_without_the_factor(learnt, corrected):
    (_, found), _ = learnt(
        beta=0.5, use_bias_correction_kl=corrected, epsilon=1e-6, loss_type="grpo", learning_rate=3e-3
    )
    change = found.reference - found.logprobs
    kl, slope = np.exp(change) - change - 1, 1 - np.exp(change)
    expected = 0.5 * (found.ratio * (kl + slope) if corrected else slope) / found.gradient.size
    policy = -found.advantages * found.ratio * found.weights / found.gradient.size
    clipped = np.where(found.advantages > 0, found.ratio > 1, found.ratio < 1)
    agree(found.gradient, np.where(clipped, 0.0, policy) + expected)
    factor = found.ratio if corrected else 1.0
    assert found.metrics["kl/reference"] == pytest.approx((factor * kl).mean(), rel=1e-3)


def test_the_entropy_bonus(learnt):
    (plain, _), _ = learnt()
    (found, _), _ = learnt(entropy_coef=0.3)
    assert found.loss == pytest.approx(plain.loss - 0.3 * plain.entropies.mean(), rel=1e-4)
    agree(found.entropy_gradient, np.full(found.gradient.shape, -0.3 / found.gradient.size))
    agree(found.gradient, plain.gradient)
    (found, _), _ = learnt(entropy_coef=0.3, top_entropy_quantile=0.25)
    top = found.entropies >= np.quantile(found.entropies, 0.75)
    agree(found.entropy_gradient, np.where(top, -0.3 / top.sum(), 0.0))


@pytest.mark.parametrize(("target", "expected"), [(100.0, [0.03, 0.05, 0.06, 0.06]), (1e-6, [0.0, 0.0, 0.0, 0.0])])
def test_the_entropy_bonus_is_steered(learnt, target, expected):
    """It grows while the entropy is under its target and acts from the second step on; else it falls and is off."""
    records, _ = learnt(
        use_adaptive_entropy=True,
        entropy_target=target,
        entropy_coef=0.01,
        entropy_coef_delta=0.02,
        entropy_coef_max=0.06,
        max_steps=4,
    )
    assert [record.metrics["entropy_coef"] for record in records] == pytest.approx(expected)
    applied = [0.0, *expected[:-1]] if target > 1 else [0.0] * 4
    for record, coefficient in zip(records, applied, strict=True):
        agree(record.entropy_gradient, np.full(record.gradient.shape, -coefficient / record.gradient.size))
