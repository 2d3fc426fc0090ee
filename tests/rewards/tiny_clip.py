"""A CLIP model small enough for tests, with random weights in a file."""

from __future__ import annotations

import json
from pathlib import Path

NAME = "ViT-tiny-for-tests"


def write_tiny_clip(folder: Path) -> tuple[str, Path]:
    """Make open_clip know the model, and write its weights.

    Returns:
        The model's name and the file of weights.
    """
    import open_clip
    import torch

    config = {
        "embed_dim": 32,
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2},
    }
    (folder / f"{NAME}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder / f"{NAME}.json")
    torch.manual_seed(0)
    weights = folder / "weights.pt"
    torch.save(open_clip.create_model(NAME).state_dict(), weights)
    return NAME, weights
