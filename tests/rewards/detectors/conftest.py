"""One Mask2Former Swin-S with random weights, as an mmdet checkpoint and as a transformers folder; photographs."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> Path:
    """A .pth file as mmdet 3 would write it. Values no default would have: biases, gains and queries differ."""
    pytest.importorskip("mmengine", reason="mmdet and mmengine, which this runs, are not installed")
    import torch

    from blip3o_grpo.rewards.detectors.mmcv_standin import ensure_mmcv_operators
    from blip3o_grpo.rewards.detectors.mmdet_mask2former import CONFIG

    ensure_mmcv_operators()
    import mmdet
    from mmdet.apis import init_detector

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        model = init_detector(str(Path(mmdet.__file__).parent / CONFIG), None, device="cpu")
    generator = torch.Generator().manual_seed(0)
    for name, weight in model.named_parameters():
        noise = torch.randn(weight.shape, generator=generator)
        if name.endswith(("query_feat.weight", "query_embed.weight")):
            weight.data = noise
        elif "cls_embed" in name or "relative_position" in name:
            weight.data = 0.3 * noise
        elif "transformer_decoder" in name and name.endswith("attn.out_proj.weight"):
            weight.data *= 0.3  # random attention makes all queries alike; then one class and one box would be found
        elif weight.dim() == 1:
            weight.data += 0.05 * noise
    path = tmp_path_factory.mktemp("mmdet") / "mask2former.pth"
    torch.save({"state_dict": model.state_dict(), "meta": {}}, path)
    return path


@pytest.fixture(scope="session")
def model_folder(checkpoint, tmp_path_factory) -> Path:
    """The same weights, converted by the command the documentation names."""
    folder = tmp_path_factory.mktemp("transformers") / "model"
    script = ROOT / "scripts" / "convert_mmdet_mask2former.py"
    command = [sys.executable, str(script), "--checkpoint", str(checkpoint), "--out", str(folder)]
    subprocess.run(command, check=True, timeout=300)
    return folder


@pytest.fixture(scope="session")
def photograph() -> Callable[[str], np.ndarray]:
    """A function that reads one of scikit-image's sample photographs as `[H, W, 3]` uint8 RGB."""
    spec = importlib.util.find_spec("skimage")
    if spec is None:
        pytest.skip("scikit-image, whose sample photographs are detected, is not installed")
    folder = Path(spec.submodule_search_locations[0]) / "data"
    return lambda name: np.asarray(Image.open(folder / name).convert("RGB"))
