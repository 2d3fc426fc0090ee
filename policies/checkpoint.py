"""The released checkpoint layout on disk: which parameter of which part has which name, safetensors only.

Every tensor is accounted for: missing, unexpected or misshapen keys are listed, never skipped silently.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from huggingface_hub import save_torch_state_dict
from safetensors import SafetensorError, safe_open
from torch import nn

from policies.config import CheckpointError

PREFIXES = {
    "sana": "model.sana.",
    "vae": "model.sana_vae.",
    "connector": "model.diffusion_connector.",
    "vision": "model.vision_tower.vision_tower.",
}
"""Prefix of each part's parameters; the AR part has the rest (Qwen3's own names)."""

# transformers' Siglip2VisionModel lost this level of nesting after TA-Tok was published.
_RENAMES = {"model.vision_tower.vision_tower.decoder.": "model.vision_tower.vision_tower.decoder.vision_model."}


def released_name(part: str, name: str) -> str:
    """Name in the released layout of parameter `name` of `part` (`ar`, `sana`, `vae`, `connector`, `vision`)."""
    full = PREFIXES.get(part, "") + name
    for ours, released in _RENAMES.items():
        if full.startswith(ours):
            return released + full.removeprefix(ours)
    return full


def part_of(released: str) -> str:
    """Part that a released parameter name belongs to."""
    return next((part for part, prefix in PREFIXES.items() if released.startswith(prefix)), "ar")


class Weights:
    """Lazy view of a checkpoint folder's tensors (`model.safetensors`, or shards with an index).

    Raises:
        CheckpointError: no weights, a shard the index names is missing, or a file that is no complete safetensors.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        index = folder / "model.safetensors.index.json"
        single = folder / "model.safetensors"
        if index.is_file():
            self.files = {key: folder / name for key, name in json.loads(index.read_text())["weight_map"].items()}
        elif single.is_file():
            self.files = dict.fromkeys(self._open(single).keys(), single)
        else:
            raise CheckpointError(f"{folder}: neither model.safetensors nor model.safetensors.index.json is there")
        for file in sorted(set(self.files.values())):
            if not file.is_file():
                raise CheckpointError(f"{index}: names {file.name}, which is missing")

    @staticmethod
    def _open(file: Path) -> safe_open:
        try:
            return safe_open(file, framework="pt")
        except SafetensorError as error:
            raise CheckpointError(f"{file}: not a complete safetensors file ({error})") from error

    def load(self, names: Iterable[str]) -> dict[str, torch.Tensor]:
        """Read the named tensors."""
        handles: dict[Path, safe_open] = {}
        tensors = {}
        for name in names:
            file = self.files[name]
            if file not in handles:
                handles[file] = self._open(file)
            tensors[name] = handles[file].get_tensor(name)
        return tensors


def load_part(weights: Weights, part: str, module: nn.Module) -> None:
    """Fill `module` with the checkpoint's tensors of `part`, cast to the module's dtype.

    Raises:
        CheckpointError: listing missing, unexpected and misshapen keys.
    """
    expected = {released_name(part, name): (name, tensor) for name, tensor in module.state_dict().items()}
    present = {key for key in weights.files if part_of(key) == part}
    missing, unexpected = sorted(expected.keys() - present), sorted(present - expected.keys())
    tensors = weights.load(sorted(expected.keys() & present))
    misshapen = [
        f"{key} {tuple(tensor.shape)} instead of {tuple(expected[key][1].shape)}"
        for key, tensor in tensors.items()
        if tensor.shape != expected[key][1].shape
    ]
    if missing or unexpected or misshapen:
        raise CheckpointError(
            f"{weights.folder}: the {part} weights do not fit the configuration; "
            + "; ".join(
                f"{what}: {', '.join(keys[:5])}{f' and {len(keys) - 5} more' if len(keys) > 5 else ''}"
                for what, keys in (("missing", missing), ("unexpected", unexpected), ("wrong shape", misshapen))
                if keys
            )
        )
    module.load_state_dict({expected[key][0]: tensor for key, tensor in tensors.items()})


def save_parts(folder: Path, parts: Mapping[str, nn.Module], dtype: torch.dtype | None = None) -> None:
    """Write all parts' tensors under their released names (shards of at most 5 GB with an index)."""
    tensors = {
        released_name(part, name): tensor.detach().to(dtype or tensor.dtype).cpu().contiguous()
        for part, module in parts.items()
        for name, tensor in module.state_dict().items()
    }
    save_torch_state_dict(tensors, folder)
