"""Our stand-in for torchvision's nms, against hand-worked boxes and against its own definition."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

SOURCE = Path(__file__).parents[2] / "scripts" / "torchvision_ops.py"


@pytest.fixture(scope="module")
def operators():
    """The module under test, without leaving its import hook behind."""
    finders = list(sys.meta_path)
    spec = importlib.util.spec_from_file_location("torchvision_ops_under_test", SOURCE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.meta_path[:] = finders
    return module


def test_overlapping_boxes_lose_to_better_ones(operators):
    boxes = torch.tensor([[0, 0, 10, 10], [1, 1, 11, 11], [20, 20, 30, 30], [0, 0, 10, 5]], dtype=torch.float32)
    scores = torch.tensor([0.5, 0.9, 0.3, 0.4])
    assert operators.nms(boxes, scores, 0.5).tolist() == [1, 3, 2]  # IoU of 0 and 1 is 81/119, of 1 and 3 is 36/114
    assert operators.nms(boxes, scores, 0.9).tolist() == [1, 0, 3, 2]
    assert operators.nms(boxes[:0], scores[:0], 0.5).tolist() == []


box = st.tuples(st.integers(0, 20), st.integers(0, 20), st.integers(1, 20), st.integers(1, 20))


@settings(deadline=None)
@given(corners=st.lists(box, min_size=1, max_size=12), data=st.data())
def test_kept_boxes_overlap_little_and_every_dropped_one_has_a_better_neighbour(operators, corners, data):
    boxes = torch.tensor([[x, y, x + w, y + h] for x, y, w, h in corners], dtype=torch.float32)
    scores = torch.tensor(data.draw(st.permutations(range(len(boxes)))), dtype=torch.float32)
    kept = operators.nms(boxes, scores, 0.5).tolist()
    assert scores[kept].tolist() == sorted(scores[kept].tolist(), reverse=True)

    def overlap(i: int, j: int) -> float:
        size = (torch.minimum(boxes[i, 2:], boxes[j, 2:]) - torch.maximum(boxes[i, :2], boxes[j, :2])).clamp(min=0)
        shared = size.prod()
        areas = [(boxes[k, 2:] - boxes[k, :2]).prod() for k in (i, j)]
        return float(shared / (sum(areas) - shared))

    assert all(overlap(i, j) <= 0.5 for i in kept for j in kept if i != j)
    dropped = set(range(len(boxes))) - set(kept)
    assert all(any(overlap(i, j) > 0.5 and scores[j] > scores[i] for j in kept) for i in dropped)


def test_torchvision_imports_in_a_fresh_process_of_this_environment():
    code = (
        "import torch, torchvision; from torchvision.ops import nms;"
        "assert nms(torch.tensor([[0., 0., 1., 1.]]), torch.tensor([1.]), 0.5).tolist() == [0]"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
