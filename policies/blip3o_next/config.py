"""Reads a checkpoint's `config.json` and says what is wrong with it before any weight is touched.

The released layout is Qwen3's configuration plus the ids of the image tokens and the origin of the diffusion head.
`model_type` names one of the released classes; the AR part is Qwen3 whatever it says.
"""

from __future__ import annotations

import difflib
import itertools
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

from blip3o_grpo.configs.names import HUB_NAME, SHIPPED
from blip3o_grpo.configs.regular_files import is_regular
from blip3o_grpo.policies.blip3o_next.json_files import CheckpointError, read_json
from blip3o_grpo.policies.blip3o_next.tied import TIE

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
SIZE_KEYS = ("vocab_size", "hidden_size", "num_hidden_layers")
RELEASED_GRID = 27  # SigLIP2 so400m patch14 at 384 px: 27 x 27 = 729 tokens
MAX_SIZES = {"vocab_size": 2**24, "hidden_size": 2**17, "num_hidden_layers": 1024}
"""Far beyond any Qwen3: larger numbers are damage, and building such a model would not end."""
QWEN3_CONTEXT = 32_768
"""`max_position_embeddings` where `config.json` names none (transformers' default)."""
TINY = Path(__file__).resolve().parents[1] / "tiny"
CHECKPOINT_FILES = ("*.safetensors", "*.json", "*.jinja", "*.txt")
"""What is fetched of a hub repository: weights, configs and tokenizer; never pickles or code."""


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
    """Folder of a policy: `configs.names.SHIPPED` come with the project, anything else is a path or a hub repository.

    Args:
        name: a shipped one's, a folder, or `ORG/NAME` (`ORG/NAME@REVISION`) on the hub if there is no such folder.

    Raises:
        CheckpointError: the folder or its `config.json` does not exist, here or on the hub.
    """
    try:
        path = TINY.with_name(str(name)) if str(name) in SHIPPED else Path(name).expanduser()
    except RuntimeError as error:
        raise CheckpointError(f"policy {str(name)!r}: no such user on this machine") from error
    if not path.is_dir():
        if str(name) in SHIPPED:
            raise CheckpointError(
                f"policy {str(name)!r}: its weights are not installed here ({path} is missing); install the "
                "project with its data files, or give a folder or a hub repository"
            )
        if not HUB_NAME.fullmatch(str(name)):
            near = difflib.get_close_matches(path.name.lower(), SHIPPED, n=1)  # a recipe makes any name a whole path
            hint = f"did you mean `{near[0]}`?" if near else "give `tiny`, a folder or a hub repository"
            raise CheckpointError(f"policy {str(name)!r}: no such folder; {hint}")
        from blip3o_grpo.policies.blip3o_next.hub import fetch

        path = fetch(str(name), CHECKPOINT_FILES, f"policy {str(name)!r}")
    if not is_regular(path / "config.json"):
        raise CheckpointError(f"{path}: config.json is missing, so this is no checkpoint in the released layout")
    return path


def read_config(path: str | Path) -> dict:
    """The keys and values of a checkpoint's `config.json`, found to be consistent.

    Raises:
        CheckpointError: unreadable JSON, missing keys, or token ranges that contradict each other or the vocabulary.
    """
    file = resolve_policy_path(path) / "config.json"
    values = read_json(file)
    if values.get("model_type") not in MODEL_TYPES:
        raise CheckpointError(
            f"{file}: model_type is {values.get('model_type')!r}, expected one of {', '.join(MODEL_TYPES)}; this is no "
            "BLIP3o-NEXT"
        )
    required = (*SIZE_KEYS, "diffusion_name_or_path", *TOKEN_KEYS)
    missing = [key for key in required if values.get(key) is None]
    if missing:
        raise CheckpointError(f"{file}: missing key {missing[0]!r} (missing in all: {', '.join(missing)})")
    for key in (*SIZE_KEYS, *TOKEN_KEYS):
        if type(values[key]) is not int or values[key] < 0:
            raise CheckpointError(f"{file}: {key} is {values[key]!r}, expected a whole number")
        if values[key] > MAX_SIZES.get(key, values[key]):
            raise CheckpointError(f"{file}: {key} is {values[key]}, more than {MAX_SIZES[key]}")
    if not isinstance(values["diffusion_name_or_path"], str):
        raise CheckpointError(f"{file}: diffusion_name_or_path is {values['diffusion_name_or_path']!r}, expected text")
    tied = values.get(TIE)
    if not isinstance(tied, bool | None):
        raise CheckpointError(f"{file}: {TIE} is {tied!r}, expected true or false")
    tower = values.get("vision_tower_config")
    if tower is not None and not (
        isinstance(tower, dict)
        and all(type(tower.get(k)) is int and tower[k] > 0 for k in ("image_size", "patch_size"))
    ):
        raise CheckpointError(f"{file}: vision_tower_config must hold image_size and patch_size, whole numbers above 0")
    _check_ranges(file, values)
    return values


def load_config(path: str | Path) -> Qwen3Config:
    """Qwen3 configuration with BLIP3o-NEXT's own keys as attributes.

    Raises:
        CheckpointError: as `read_config`.
    """
    from transformers import Qwen3Config

    values = read_config(path)
    model_type = values.pop("model_type")
    try:
        config = Qwen3Config(**values | {TIE: bool(values.get(TIE))})
    except Exception as error:  # transformers checks types with errors of its own
        file = resolve_policy_path(path) / "config.json"
        raise CheckpointError(f"{file}: not a Qwen3 configuration ({one_line(error)})") from error
    config.released_model_type = model_type
    return config


def plain_config(path: str | Path) -> SimpleNamespace:
    """The keys of `config.json` as attributes, without transformers; what checks and tokenizers need of them.

    Raises:
        CheckpointError: as `read_config`, or a context length that is no whole number.
    """
    values = {"max_position_embeddings": QWEN3_CONTEXT} | read_config(path)
    length = values["max_position_embeddings"]
    if type(length) is not int or length < 1:
        file = resolve_policy_path(path) / "config.json"
        raise CheckpointError(f"{file}: max_position_embeddings is {length!r}, expected a whole number above 0")
    return SimpleNamespace(**values)


def one_line(error: Exception) -> str:
    """Another library's message, without its line breaks and cut off."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def _check_ranges(file: Path, values: dict) -> None:
    taken: dict[range, str] = {}
    for kind in ("scale", "image"):
        start, end, num = (
            values[key] for key in (f"{kind}_start_token_id", f"{kind}_end_token_id", f"num_{kind}_tokens")
        )
        if num < 1 or end - start + 1 != num:
            raise CheckpointError(
                f"{file}: {kind}_start_token_id={start} .. {kind}_end_token_id={end} are {end - start + 1} ids, "
                f"but num_{kind}_tokens={num}"
            )
        taken[range(start, end + 1)] = f"{kind}_start_token_id={start} .. {kind}_end_token_id={end}"
    for key in ("image_start_tag_id", "image_end_tag_id"):
        taken[range(values[key], values[key] + 1)] = f"{key}={values[key]}"
    ordered = sorted(taken, key=lambda ids: (ids.start, ids.stop))
    for first, second in itertools.pairwise(ordered):
        if second.start < first.stop:
            raise CheckpointError(f"{file}: {taken[first]} and {taken[second]} overlap")
    last = ordered[-1]
    if last.stop > values["vocab_size"]:
        raise CheckpointError(f"{file}: {taken[last]} lies outside the vocabulary of {values['vocab_size']}")


def grid_size(config: Qwen3Config | SimpleNamespace) -> int:
    """Image tokens per side at scale 0: the vision tower's patches per side."""
    tower = getattr(config, "vision_tower_config", None)
    return tower["image_size"] // tower["patch_size"] if tower else RELEASED_GRID


def image_tokens(config: Qwen3Config | SimpleNamespace) -> ImageTokens:
    """The action space that a checkpoint's configuration describes."""
    return ImageTokens(config.image_start_token_id, config.num_image_tokens, grid_size(config) ** 2)
