"""Reads a checkpoint's `config.json` and says what is wrong with it before any weight is touched.

The released layout is Qwen3's configuration plus the ids of the image tokens and the origin of the diffusion head.
`model_type` names one of the released classes; the AR part is Qwen3 whatever it says.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import Qwen3Config

MODEL_TYPES = ("blip3o_qwen", "blip3o_qwen_inference", "blip3o_qwen_grpo")
TOKEN_KEYS = (
    "image_start_tag_id",
    "image_end_tag_id",
    "scale_start_token_id",
    "scale_end_token_id",
    "num_scale_tokens",
    "image_start_token_id",
    "image_end_token_id",
    "num_image_tokens",
)
RELEASED_GRID = 27  # SigLIP2 so400m patch14 at 384 px: 27 x 27 = 729 tokens
TINY = Path(__file__).parent / "tiny"


class CheckpointError(ValueError):
    """A checkpoint folder that cannot be used: names the file and the key."""


@dataclass(frozen=True)
class ImageTokens:
    """The action space: ids `start` .. `start + size - 1`, exactly `num_tokens` of them per image."""

    start: int
    size: int
    num_tokens: int

    @property
    def stop(self) -> int:
        """First id after the image tokens."""
        return self.start + self.size


def resolve_policy_path(name: str | Path) -> Path:
    """Folder of a policy: `tiny` is the one shipped with the project, anything else is a path.

    Raises:
        CheckpointError: the folder or its `config.json` does not exist.
    """
    path = TINY if str(name) == "tiny" else Path(name).expanduser()
    if not path.is_dir():
        hint = (
            "build it first: python scripts/build_tiny_policy.py --output policies/tiny"
            if path == TINY
            else ("give `tiny` or a folder in the released layout")
        )
        raise CheckpointError(f"policy {str(name)!r}: no such folder; {hint}")
    if not (path / "config.json").is_file():
        raise CheckpointError(f"{path}: config.json is missing, so this is no checkpoint in the released layout")
    return path


def load_config(path: str | Path) -> Qwen3Config:
    """Qwen3 configuration with BLIP3o-NEXT's own keys as attributes.

    Raises:
        CheckpointError: unreadable JSON, missing keys, or token ranges that contradict each other or the vocabulary.
    """
    from transformers import Qwen3Config

    file = resolve_policy_path(path) / "config.json"
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{file}: not valid JSON ({error})") from error
    if values.get("model_type") not in MODEL_TYPES:
        raise CheckpointError(
            f"{file}: model_type is {values.get('model_type')!r}, expected one of {', '.join(MODEL_TYPES)}"
        )
    required = ("vocab_size", "hidden_size", "num_hidden_layers", "diffusion_name_or_path", *TOKEN_KEYS)
    missing = [key for key in required if values.get(key) is None]
    if missing:
        raise CheckpointError(f"{file}: missing key {missing[0]!r} (missing in all: {', '.join(missing)})")
    _check_ranges(file, values)
    model_type = values.pop("model_type")
    config = Qwen3Config(**values)
    config.released_model_type = model_type
    return config


def _check_ranges(file: Path, values: dict) -> None:
    for kind in ("scale", "image"):
        start, end, num = (
            values[key] for key in (f"{kind}_start_token_id", f"{kind}_end_token_id", f"num_{kind}_tokens")
        )
        if end - start + 1 != num:
            raise CheckpointError(
                f"{file}: {kind}_start_token_id={start} .. {kind}_end_token_id={end} are {end - start + 1} ids, "
                f"but num_{kind}_tokens={num}"
            )
        if not 0 <= start <= end < values["vocab_size"]:
            raise CheckpointError(
                f"{file}: {kind}_end_token_id={end} lies outside the vocabulary of {values['vocab_size']}"
            )


def grid_size(config: Qwen3Config) -> int:
    """Image tokens per side at scale 0: the vision tower's patches per side."""
    tower = getattr(config, "vision_tower_config", None)
    return tower["image_size"] // tower["patch_size"] if tower else RELEASED_GRID


def image_tokens(config: Qwen3Config) -> ImageTokens:
    """The action space that a checkpoint's configuration describes."""
    return ImageTokens(config.image_start_token_id, config.num_image_tokens, grid_size(config) ** 2)
