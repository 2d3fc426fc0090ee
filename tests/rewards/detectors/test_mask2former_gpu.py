"""The transformers detector answers on a GPU as it does on a CPU; needs neither mmdet nor trained weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from blip3o_grpo.rewards.detectors import build_detector
from blip3o_grpo.rewards.detectors.transformers_mask2former import swin_small_config


@pytest.fixture
def random_folder(tmp_path):
    """Random weights whose scores are well apart, so that rounding does not choose between them."""
    from transformers import Mask2FormerForUniversalSegmentation

    torch.manual_seed(0)
    model = Mask2FormerForUniversalSegmentation(swin_small_config())
    with torch.no_grad():
        model.model.transformer_module.queries_features.weight.normal_()
        model.model.transformer_module.queries_embedder.weight.normal_()
        model.class_predictor.weight.normal_(std=0.3)
    model.save_pretrained(tmp_path)
    return tmp_path


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_finds_the_same(random_folder):
    image = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8).repeat(16, axis=0).repeat(16, axis=1)
    results = []
    for device in ("cpu", "cuda"):
        detector = build_detector("transformers", folder=str(random_folder), device=device, image_sides=(333, 200))
        results.append(detector([image])[0])
    (on_cpu, on_gpu), orders = results, [found.scores.argsort()[::-1] for found in results]
    np.testing.assert_allclose(on_gpu.scores[orders[1]], on_cpu.scores[orders[0]], atol=1e-2)
    best_on_cpu, best_on_gpu = orders[0][0], orders[1][0]
    assert on_cpu.classes[best_on_cpu] == on_gpu.classes[best_on_gpu]
    assert (on_cpu.masks[best_on_cpu] ^ on_gpu.masks[best_on_gpu]).mean() < 1e-2
