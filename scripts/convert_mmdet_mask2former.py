"""Convert mmdet's Mask2Former Swin-S (COCO instances), GenEval's detector, into a transformers model folder.

    python scripts/convert_mmdet_mask2former.py --checkpoint mask2former_swin-s-p4-w7-224_8xb2-lsj-50e_coco.pth --out F

Needs torch and transformers only. The folder F (safetensors and config.json) is what the detector `transformers` loads.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from transformers import Mask2FormerForUniversalSegmentation

from blip3o_grpo.rewards.detectors.mask2former_weights import load_mmdet_weights, to_transformers
from blip3o_grpo.rewards.detectors.transformers_mask2former import swin_small_config
from blip3o_grpo.rewards.types import RewardError

_UNUSED_NORM = "model.pixel_level_module.encoder.swin.layernorm."


def convert(checkpoint: Path, folder: Path) -> None:
    """Write the model folder.

    Raises:
        RewardError: the checkpoint cannot be read, or is not of this network.
    """
    weights = to_transformers(load_mmdet_weights(checkpoint))
    model = Mask2FormerForUniversalSegmentation(swin_small_config())
    expected = {name for name in model.state_dict() if not _left_out(name)}
    if differing := sorted(expected ^ weights.keys()):
        side = "lacks" if differing[0] in expected else "has an unknown"
        raise RewardError(f"{checkpoint} is no Mask2Former Swin-S: it {side} {differing[0]} ({len(differing)} differ)")
    try:
        model.load_state_dict(weights, strict=False)  # all but what is left out above
    except RuntimeError as error:
        raise RewardError(f"{checkpoint} is no Mask2Former Swin-S: {' '.join(str(error).split())[:200]}") from error
    model.save_pretrained(folder)


def _left_out(name: str) -> bool:
    """Whether mmdet rightly lacks a weight: index tables, which are computed, the loss, and a layer no output uses."""
    return name.endswith("relative_position_index") or name.startswith(("criterion.", _UNUSED_NORM))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, required=True, help="mmdet's .pth file")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    options = parser.parse_args()
    try:
        convert(options.checkpoint, options.out)
    except RewardError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
