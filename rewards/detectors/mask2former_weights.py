"""Weights of mmdet's Mask2Former: loaded without running pickled code, and renamed for transformers."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from blip3o_grpo.rewards.types import RewardError

_OLDER_NAMES = (
    (r"(pixel_decoder\.encoder\.layers\.\d+\.)attentions\.0\.", r"\1self_attn."),
    (r"(transformer_decoder\.layers\.\d+\.)attentions\.0\.", r"\1cross_attn."),
    (r"(transformer_decoder\.layers\.\d+\.)attentions\.1\.", r"\1self_attn."),
    (r"((?:pixel_decoder\.encoder|transformer_decoder)\.layers\.\d+\.)ffns\.0\.", r"\1ffn."),
)
"""mmdet 2 named a layer's parts by number; mmdet 3 names them by what they do."""

_SWIN = (
    (r"norm1", "layernorm_before"),
    (r"norm2", "layernorm_after"),
    (r"ffn\.layers\.0\.0", "mlp.fc1"),
    (r"ffn\.layers\.1", "mlp.fc2"),
    (r"attn\.w_msa\.proj", "attention.o_proj"),
    (r"attn\.w_msa\.relative_position_bias_table", "attention.relative_position_bias.relative_position_bias_table"),
)
_PIXEL_DECODER = (
    (r"^input_convs\.(\d)\.conv", r"input_projections.\1.0"),
    (r"^input_convs\.(\d)\.gn", r"input_projections.\1.1"),
    (r"^lateral_convs\.0\.conv", "adapter_1.0"),
    (r"^lateral_convs\.0\.gn", "adapter_1.1"),
    (r"^output_convs\.0\.conv", "layer_1.0"),
    (r"^output_convs\.0\.gn", "layer_1.1"),
    (r"^mask_feature", "mask_projection"),
    (r"^level_encoding\.weight", "level_embed"),
    (r"ffn\.layers\.0\.0", "fc1"),
    (r"ffn\.layers\.1", "fc2"),
    (r"norms\.0", "self_attn_layer_norm"),
    (r"norms\.1", "final_layer_norm"),
)
_DECODER = (
    (r"^post_norm", "layernorm"),
    (r"self_attn\.attn\.", "self_attn."),
    (r"cross_attn\.attn\.", "cross_attn."),
    (r"norms\.0", "cross_attn_layer_norm"),
    (r"norms\.1", "self_attn_layer_norm"),
    (r"norms\.2", "final_layer_norm"),
    (r"ffn\.layers\.0\.0", "fc1"),
    (r"ffn\.layers\.1", "fc2"),
)
_HEAD = (
    (r"^cls_embed", "class_predictor"),
    (r"^query_embed", "model.transformer_module.queries_embedder"),
    (r"^query_feat", "model.transformer_module.queries_features"),
    (r"^level_embed", "model.transformer_module.level_embed"),
)
_MASK_EMBEDDER = "model.transformer_module.decoder.mask_predictor.mask_embedder"


class _Ignored:
    """Takes the place of mmengine's log history, which checkpoints carry along."""


def _no_attribute(*_: object) -> None:
    """Takes the place of `getattr`, by which that history names its own methods."""


def load_mmdet_weights(checkpoint: str | Path) -> dict[str, Tensor]:
    """Read the weights of an mmdet checkpoint, under mmdet 3's names, on the CPU.

    Nothing pickled is run: torch's restricted loader, plus what checkpoints written by mmengine contain beside
    tensors (numpy arrays and numbers; the log history is skipped). mmengine need not be installed.

    Raises:
        RewardError: no such file, a file with other pickled objects, or one without weights.
    """
    path = Path(checkpoint).expanduser()
    if not path.is_file():
        raise RewardError(f"checkpoint {str(path)!r} does not exist; docs/detectors.md says where to get it")
    try:
        with torch.serialization.safe_globals(_allowed()):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise RewardError(f"checkpoint {str(path)!r} cannot be read: {_reason(error)}") from error
    weights = content.get("state_dict") if isinstance(content, Mapping) else None
    if not weights:
        raise RewardError(f"checkpoint {str(path)!r} has no 'state_dict'; it must be one that mmdet wrote")
    return {_replaced(name, _OLDER_NAMES): value for name, value in weights.items()}


def to_transformers(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename and reorder weights of mmdet's Mask2Former with a Swin backbone for transformers' Mask2Former.

    The two differ beyond names in two places: transformers splits the attention projections into query, key and
    value, and its patch merging orders the four neighbours by column, mmdet's by row of the flattened kernel.

    Args:
        weights: as `load_mmdet_weights` returns them.

    Returns:
        The state dict of `Mask2FormerForUniversalSegmentation`; index buffers, which both compute, are left out.

    Raises:
        RewardError: a name that no Mask2Former with Swin has.
    """
    converted: dict[str, Tensor] = {}
    for name, value in weights.items():
        if name.endswith("relative_position_index"):
            continue
        if name.startswith("backbone."):
            converted |= _backbone(name.removeprefix("backbone."), value)
        elif name.startswith("panoptic_head."):
            converted |= _head(name.removeprefix("panoptic_head."), value)
        else:
            raise RewardError(f"weight {name!r} belongs to no Mask2Former; the checkpoint is of another model")
    return converted


def _backbone(name: str, value: Tensor) -> dict[str, Tensor]:
    base = "model.pixel_level_module.encoder."
    if match := re.fullmatch(r"norm(\d)\.(.*)", name):
        return {f"{base}hidden_states_norms.stage{int(match[1]) + 1}.{match[2]}": value}
    if name.startswith("patch_embed."):
        name = name.removeprefix("patch_embed.").replace("projection", "patch_embeddings.projection")
        return {f"{base}swin.embeddings.{name}": value}
    match = re.fullmatch(r"stages\.(\d)\.(.*)", name)
    if match is None:
        raise RewardError(f"weight 'backbone.{name}' belongs to no Swin backbone; the checkpoint is of another model")
    base, name = f"{base}swin.encoder.layers.{match[1]}.", match[2]
    if name.startswith("downsample"):
        return {base + name: _patch_merging(value)}
    if "attn.w_msa.qkv" in name:
        parts = zip("qkv", value.chunk(3), strict=True)
        return {base + name.replace("attn.w_msa.qkv", f"attention.{part}_proj"): chunk for part, chunk in parts}
    return {base + _replaced(name, _SWIN): value}


def _patch_merging(value: Tensor) -> Tensor:
    """Reorder the inputs `[..., 4 C]` of a patch merging: mmdet has channel outside, position (row first) inside;
    transformers has position (column first) outside, channel inside."""
    by_channel = value.unflatten(-1, (-1, 4))
    return by_channel[..., [0, 2, 1, 3]].transpose(-1, -2).flatten(-2)


def _head(name: str, value: Tensor) -> dict[str, Tensor]:
    if name.startswith("pixel_decoder."):
        name = _replaced(name.removeprefix("pixel_decoder."), _PIXEL_DECODER)
        return {f"model.pixel_level_module.decoder.{name}": value}
    if match := re.fullmatch(r"mask_embed\.(\d)\.(\w+)", name):  # linear layers at 0, 2 and 4, ReLU between them
        return {f"{_MASK_EMBEDDER}.{int(match[1]) // 2}.0.{match[2]}": value}
    if not name.startswith("transformer_decoder."):
        return {_replaced(name, _HEAD): value}
    base, name = "model.transformer_module.decoder.", name.removeprefix("transformer_decoder.")
    # torch's own attention module keeps the three projections in one; the cross-attention is that module on both sides
    if match := re.fullmatch(r"(.*self_attn\.)attn\.in_proj_(\w+)", name):
        parts = zip("qkv", value.chunk(3), strict=True)
        return {f"{base}{match[1]}{part}_proj.{match[2]}": chunk for part, chunk in parts}
    return {base + _replaced(name, _DECODER): value}


def _replaced(name: str, rules: tuple[tuple[str, str], ...]) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def _reason(error: Exception) -> str:
    """What torch says went wrong, without its advice to switch the protection off."""
    found = re.search(r"Unsupported (?:global|class|operand).*?(?= was not|\.? Please|\n|$)", str(error))
    return found[0] if found else str(error).strip().splitlines()[0]


def _allowed() -> list[object]:
    """What torch's restricted loader may build; numpy's functions also under their names before numpy 2."""
    reconstruct, scalar = np._core.multiarray._reconstruct, np._core.multiarray.scalar
    return [
        (_Ignored, "mmengine.logging.history_buffer.HistoryBuffer"),
        (_no_attribute, "builtins.getattr"),
        (reconstruct, "numpy._core.multiarray._reconstruct"),
        (reconstruct, "numpy.core.multiarray._reconstruct"),
        (scalar, "numpy._core.multiarray.scalar"),
        (scalar, "numpy.core.multiarray.scalar"),
        np.ndarray,
        np.dtype,
        *(type(np.dtype(kind)) for kind in ("f4", "f8", "i4", "i8", "u4", "u8", "?")),
    ]
