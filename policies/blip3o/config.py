"""Reads a BLIP3-o checkpoint's `config.json` and says what is wrong with it before any weight is touched.

The layout is this project's own, `model_type` `blip3o`: one file holds the configurations of all parts under their
libraries' own keys, so that a folder needs no second one. Needs no torch.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from blip3o_grpo.policies.blip3o_next.config import resolve_policy_path
from blip3o_grpo.policies.blip3o_next.json_files import CheckpointError, read_json

MODEL_TYPE = "blip3o"
SECTIONS = ("ar", "dit", "pixel_decoder", "scheduler")
"""Configurations of Qwen2.5-VL's text model, Lumina Next-DiT, the pixel decoder and the flow's scheduler."""
MAX_SIZE = 2**24
"""Far beyond any size, count or id of such a model: larger numbers are damage."""
NEEDED = {
    "ar": ("vocab_size", "hidden_size", "num_hidden_layers", "max_position_embeddings"),
    "dit": ("sample_size", "in_channels", "hidden_size", "num_layers", "num_attention_heads", "cross_attention_dim"),
    "pixel_decoder": (),
    "scheduler": (),
}
FACTORS = (("pixel_decoder", "scaling_factor"), ("scheduler", "shift"))
"""Numbers that no shape tells: of 0 or damage every picture would be one colour, or no number."""
STAGES = "encoder_block_out_channels"
"""Of the pixel decoder; a picture's side follows from how many there are."""


def read_config(path: str | Path) -> dict[str, Any]:
    """The keys and values of a checkpoint's `config.json`, found to be complete.

    Raises:
        CheckpointError: another model's checkpoint, unreadable JSON, a key that is missing or no sensible number.
    """
    file = resolve_policy_path(path) / "config.json"
    values = read_json(file)
    if values.get("model_type") != MODEL_TYPE:
        raise CheckpointError(
            f"{file}: model_type is {values.get('model_type')!r}, expected {MODEL_TYPE!r}; this is no BLIP3-o"
        )
    for section in SECTIONS:
        if not isinstance(values.get(section), dict):
            raise CheckpointError(f"{file}: missing section {section!r} (needed: {', '.join(SECTIONS)})")
    numbers = {"num_queries": values, "image_start_token_id": values}
    _check_numbers(file, numbers)
    for section, keys in NEEDED.items():
        _check_numbers(file, dict.fromkeys(keys, values[section]), f"{section}.")
    _check_optional(file, values)
    if values["image_start_token_id"] >= values["ar"]["vocab_size"]:
        raise CheckpointError(
            f"{file}: image_start_token_id={values['image_start_token_id']} lies outside the vocabulary of "
            f"{values['ar']['vocab_size']}"
        )
    return values


def _check_numbers(file: Path, where: dict[str, dict[str, Any]], prefix: str = "") -> None:
    for key, section in where.items():
        if section.get(key) is None:
            raise CheckpointError(f"{file}: missing key {prefix + key!r}")
        if type(section[key]) is not int or not 0 < section[key] <= MAX_SIZE:
            raise CheckpointError(
                f"{file}: {prefix}{key} is {section[key]!r}, expected a whole number from 1 to {MAX_SIZE}"
            )


def _check_optional(file: Path, values: dict[str, Any]) -> None:
    """What may be left out, and libraries take as it comes."""
    for section, key in FACTORS:
        value = values[section].get(key, 1.0)
        if type(value) not in (int, float) or not (math.isfinite(value) and value > 0):
            raise CheckpointError(f"{file}: {section}.{key} is {value!r}, expected a number above 0")
    stages = values["pixel_decoder"].get(STAGES, [1])
    if not isinstance(stages, list) or not stages or not all(type(width) is int and width > 0 for width in stages):
        raise CheckpointError(f"{file}: pixel_decoder.{STAGES} is {stages!r}, expected a list of whole numbers above 0")
    if values["scheduler"].get("use_dynamic_shifting", False) is not False:
        raise CheckpointError(
            f"{file}: scheduler.use_dynamic_shifting: noise levels are the same at every size here; give false, or "
            "leave it out"
        )
