"""Mask2Former really runs in mmdet and in transformers, and both find the same objects with the same weights.

No trained weights come in a package, so the weights are random: what is compared is every step, not what is found.
"""

from __future__ import annotations

import sys

import matplotlib
import numpy as np
import pytest
from PIL import Image

from blip3o_grpo.rewards.detectors import build_detector
from blip3o_grpo.rewards.detectors.coco import GENEVAL_NAMES
from blip3o_grpo.rewards.detectors.detections import Detector

SIDES = (333, 200)
"""A quarter of the official size, for speed."""


@pytest.fixture(scope="module")
def mmdet_detector(checkpoint):
    return build_detector("mmdet", checkpoint=str(checkpoint), image_sides=SIDES)


@pytest.fixture(scope="module")
def transformers_detector(model_folder):
    return build_detector("transformers", folder=str(model_folder), image_sides=SIDES)


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    """`[96, 140, 3]`: neither side becomes a multiple of the network's strides, so both are padded."""
    photo = Image.open(f"{matplotlib.get_data_path()}/sample_data/grace_hopper.jpg").convert("RGB")
    return np.asarray(photo.resize((140, 96)))


def largest_differences(first, second) -> tuple[float, float, float]:
    """Of scores, box edges (px) and shares of mask pixels, over pairs of the same class, best matches first."""
    assert len(first) == len(second) and sorted(first.classes) == sorted(second.classes)
    free = set(range(len(second)))
    scores, edges, pixels = [], [], []
    for index, name in enumerate(first.classes):
        differing = {
            other: (abs(second.scores[other] - first.scores[index]), (second.masks[other] ^ first.masks[index]).mean())
            for other in free
            if second.classes[other] == name
        }
        other = min(differing, key=lambda candidate: sum(differing[candidate]))
        free.remove(other)
        scores.append(differing[other][0])
        pixels.append(differing[other][1])
        edges.append(abs(second.boxes[other] - first.boxes[index]).max())
    return max(scores), max(edges), max(pixels)


def test_mmdet_finds_objects_with_masks(mmdet_detector, picture):
    assert isinstance(mmdet_detector, Detector)
    (found,) = mmdet_detector([picture])
    assert len(found) == 100 and found.masks.shape == (100, 96, 140) and found.masks.dtype == bool
    assert set(found.classes) <= set(GENEVAL_NAMES)
    assert (found.scores >= 0).all() and (found.scores <= 1).all()
    assert (found.boxes >= 0).all() and (found.boxes <= [140, 96, 140, 96]).all()


def test_both_find_the_same(mmdet_detector, transformers_detector, picture):
    assert isinstance(transformers_detector, Detector)
    (theirs,), (ours,) = mmdet_detector([picture]), transformers_detector([picture])
    score, edge, pixels = largest_differences(theirs, ours)
    assert score < 1e-3 and edge <= 1 and pixels < 1e-3
    assert len(set(ours.classes)) > 10 and 0.02 < ours.masks.mean() < 0.98  # so this was no trivial match


@pytest.mark.slow
def test_both_find_the_same_at_the_official_size(checkpoint, model_folder, picture):
    (theirs,) = build_detector("mmdet", checkpoint=str(checkpoint))([picture])
    (ours,) = build_detector("transformers", folder=str(model_folder))([picture])
    score, edge, pixels = largest_differences(theirs, ours)
    assert score < 1e-3 and edge <= 1 and pixels < 1e-3


@pytest.mark.parametrize("size", [(64, 64), (37, 211), (480, 640), (900, 300), (1, 1)])
def test_the_network_sees_the_same_pixels(mmdet_detector, size):
    """Through mmdet's own pipeline and data preprocessor: BGR in, scaling, normalisation and padding."""
    from mmcv.transforms import Compose
    from mmdet.utils import get_test_pipeline_cfg

    from blip3o_grpo.rewards.detectors.transformers_mask2former import preprocess

    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    model = mmdet_detector._model
    steps = get_test_pipeline_cfg(model.cfg.copy())
    steps[0].type = "mmdet.LoadImageFromNDArray"
    data = Compose(steps)({"img": image[:, :, ::-1], "img_id": 0})
    data = model.data_preprocessor({"inputs": [data["inputs"]], "data_samples": [data["data_samples"]]})
    pixels, scaled = preprocess(image, SIDES)
    assert tuple(data["data_samples"][0].img_shape) == scaled
    assert pixels.shape == tuple(data["inputs"].shape)
    np.testing.assert_allclose(pixels, data["inputs"].numpy(), atol=1e-4)


def test_the_same_network_output_becomes_the_same_detections(mmdet_detector):
    """Blobs of every size, an empty mask among them, through mmdet's own fusion head and through ours."""
    import torch
    from mmdet.structures import DetDataSample
    from torch.nn import functional

    from blip3o_grpo.rewards.detectors.mmdet_mask2former import _detections
    from blip3o_grpo.rewards.detectors.transformers_mask2former import postprocess

    generator = torch.Generator().manual_seed(1)
    centres, radii = torch.rand(100, 2, generator=generator) * 48, torch.rand(100, generator=generator) * 20
    radii[0] = -5  # nowhere above zero
    rows, columns = torch.meshgrid(torch.arange(48.0), torch.arange(48.0), indexing="ij")
    distances = ((rows - centres[:, :1, None]) ** 2 + (columns - centres[:, 1:, None]) ** 2).sqrt()
    mask_logits = (radii[:, None, None] - distances) / 4
    class_logits = 3 * torch.randn(100, 81, generator=generator)
    class_logits[0, 7] = 12.0  # so that the empty mask is among the best pairs
    sample = DetDataSample(metainfo={"img_shape": (180, 170), "ori_shape": (61, 57)})
    upsampled = functional.interpolate(mask_logits[None], (192, 192), mode="bilinear", align_corners=False)
    head = mmdet_detector._model.panoptic_fusion_head
    theirs = _detections(head.predict(class_logits[None], upsampled, [sample], rescale=True)[0]["ins_results"])
    ours = postprocess(class_logits, mask_logits, (192, 192), (180, 170), (61, 57))
    score, edge, pixels = largest_differences(theirs, ours)
    assert score < 1e-5 and edge == 0 and pixels == 0
    assert len({tuple(box) for box in ours.boxes}) > 20 and len(set(ours.classes)) > 20
    assert (ours.boxes == 0).all(axis=1).any() and not (ours.boxes == 0).all(axis=1).all()


def test_a_picture_of_one_pixel_is_no_accident(mmdet_detector, transformers_detector):
    dot = np.full((1, 1), 50000, np.uint16)  # grey and of 16 bits at that
    for detector in (mmdet_detector, transformers_detector):
        (found,) = detector([dot])
        assert found.masks.shape == (100, 1, 1)


def test_mmdet_gets_blue_first(mmdet_detector, monkeypatch):
    """It reads files as BGR, and arrays must look the same; the public servers that send RGB lose accuracy."""
    import mmdet.apis

    seen = []
    monkeypatch.setattr(mmdet.apis, "inference_detector", lambda model, images: seen.extend(images) or [])
    mmdet_detector([np.full((8, 8, 3), (255, 0, 7), np.uint8)])
    assert tuple(seen[0][0, 0]) == (7, 0, 255)


def test_mmdet_runs_beside_mmcv_lite_only_by_the_stand_in(mmdet_detector):
    from blip3o_grpo.rewards import RewardError
    from blip3o_grpo.rewards.detectors.mmcv_standin import ensure_mmcv_operators

    if ensure_mmcv_operators():
        pytest.skip("full mmcv is installed: the stand-in is not used")
    with pytest.raises(RewardError, match="no compiled operator 'nms'"):
        sys.modules["mmcv._ext"].nms(None, None)
