"""Make a torchvision built for another PyTorch importable: define `nms` and `qnms` in pure PyTorch.

PyPI's torchvision wheel is a CUDA build. Beside a CPU-only torch its compiled operators do not load, and the import
itself fails with "operator torchvision::nms does not exist". `scripts/setup_env.sh` copies this file into the virtual
environment together with a `.pth` line, so every Python process there, Ray's and vLLM's included, has the import hook
below. The hook does nothing when torchvision's own operators load, and costs nothing until torchvision is imported.

Left out on purpose: the other operators (roi_align, deform_conv2d, ...). They keep failing loudly.
"""

import importlib.abc
import importlib.machinery
import sys

_LIBRARIES = []  # A torch.library.Library takes its operators with it when it is garbage-collected.


def nms(boxes, scores, iou_threshold):
    """Greedy non-maximum suppression.

    Args:
        boxes: [N, 4] tensor of (x1, y1, x2, y2).
        scores: [N] tensor.
        iou_threshold: a box is dropped if it overlaps a better one by more than this intersection over union.

    Returns:
        [K] int64 indices of the boxes kept, best score first.
    """
    import torch

    order = scores.argsort(descending=True, stable=True)
    sorted_boxes = boxes.float()[order]
    top_left, bottom_right = sorted_boxes[:, :2], sorted_boxes[:, 2:]
    area = (bottom_right - top_left).prod(dim=1)
    dropped = torch.zeros(len(order), dtype=torch.bool, device=boxes.device)
    kept = []
    for index in range(len(order)):
        if dropped[index]:
            continue
        kept.append(index)
        later = slice(index + 1, None)
        overlap = torch.minimum(bottom_right[index], bottom_right[later]) - torch.maximum(
            top_left[index], top_left[later]
        )
        intersection = overlap.clamp(min=0).prod(dim=1)
        dropped[later] |= intersection / (area[index] + area[later] - intersection) > iou_threshold
    return order[kept]


def define_operators():
    """Register `torchvision::nms` and `torchvision::qnms`; a second call does nothing."""
    import torch

    if _LIBRARIES:
        return
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.impl(name, nms, "CPU")
    _LIBRARIES.append(library)


class _TorchvisionHook(importlib.abc.MetaPathFinder):
    """Acts on two modules that torchvision imports after it has tried to load its compiled operators."""

    def find_spec(self, fullname, path, target=None):
        if fullname not in ("torchvision._meta_registrations", "torchvision.ops.boxes"):
            return None
        extension = sys.modules.get("torchvision.extension")
        if extension is None or extension._has_ops():
            return None
        define_operators()
        if fullname != "torchvision.ops.boxes":
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path)
        run_module = spec.loader.exec_module

        def run_without_assertion(module):
            run_module(module)
            module._assert_has_ops = lambda: None  # nms() asks for the compiled operators before it looks ours up

        spec.loader.exec_module = run_without_assertion
        return spec


def install_hook():
    """Put the hook first on `sys.meta_path`, once."""
    if not any(isinstance(finder, _TorchvisionHook) for finder in sys.meta_path):
        sys.meta_path.insert(0, _TorchvisionHook())


install_hook()
