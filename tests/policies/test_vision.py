"""VQ-SigLIP2: token counts of the three scales, nearest codes, and gradients through the quantiser."""

from __future__ import annotations

import pytest
import torch

from blip3o_grpo.policies.blip3o_next.vision import SimVQ


@pytest.mark.parametrize(("pooling", "num_tokens"), [(1, 49), (2, 9), (3, 4)])
def test_the_three_pooling_scales(policy, pooling, num_tokens):
    indices = policy.vision.encode(torch.rand(2, 3, 56, 56), pooling)
    assert indices.shape == (2, num_tokens)
    assert indices.min() >= 0 and indices.max() < policy.config.num_image_tokens


def test_another_pooling_is_refused(policy):
    with pytest.raises(ValueError, match="pooling is 4"):
        policy.vision.encode(torch.rand(1, 3, 56, 56), 4)


def test_images_of_any_size_are_resized(policy):
    assert policy.vision.encode(torch.rand(1, 3, 100, 80)).shape == (1, 49)


def test_encoding_does_not_depend_on_the_batch(policy):
    images = torch.rand(4, 3, 56, 56, generator=torch.Generator().manual_seed(0))
    assert torch.equal(policy.vision.encode(images)[2], policy.vision.encode(images[2:3])[0])


def test_codes_are_nearest_by_distance_or_by_cosine():
    features = torch.randn(50, 8)
    for normalized in (False, True):
        codebook = SimVQ(32, 8, normalized)
        plain = codebook.embedding_proj(codebook.embedding.weight)
        cosine = torch.nn.functional.cosine_similarity(features[:, None], plain[None], dim=-1)
        expected = cosine.argmax(-1) if normalized else torch.cdist(features, plain).argmin(-1)
        assert torch.equal(codebook(features)[1], expected)


def test_gradients_pass_straight_through():
    features = torch.randn(5, 8, requires_grad=True)
    SimVQ(32, 8, False)(features)[0].sum().backward()
    torch.testing.assert_close(features.grad, torch.ones(5, 8))


def test_reconstruction_has_the_towers_width(policy):
    assert policy.vision.reconstruct(torch.randn(2, 49, 16)).shape == (2, 49, 128)
