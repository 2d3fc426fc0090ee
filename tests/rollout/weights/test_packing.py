"""Weights survive packing bit by bit, in every dtype a policy may have."""

import pytest
import torch

from blip3o_grpo.rollout.weights.packing import pack_weights, unpack_weights


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_packing_is_lossless(dtype):
    weights = {"a": torch.randn(3, 5).to(dtype), "b.c": torch.randn(4).to(dtype), "scalar": torch.tensor(2.5).to(dtype)}
    weights["strided"] = torch.randn(6, 4).to(dtype).T
    found = dict(unpack_weights(pack_weights(weights, dtype)))
    assert list(found) == list(weights)
    for name, tensor in weights.items():
        assert found[name].dtype == dtype and found[name].shape == tensor.shape
        assert torch.equal(found[name], tensor)


def test_weights_travel_in_the_precision_that_is_computed_in():
    """They are what a worker in bfloat16 makes of them in float32 on arrival, in half the bytes."""
    weights = {"a": torch.randn(3, 5)}
    packed = pack_weights(weights, torch.bfloat16)
    assert packed["a"][0].nbytes == 3 * 5 * 2
    (_, found), *_ = unpack_weights(packed)
    assert torch.equal(found, weights["a"].to(torch.bfloat16))
