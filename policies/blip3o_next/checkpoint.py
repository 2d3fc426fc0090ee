"""The released checkpoint layout on disk: which parameter of which part has which name, safetensors only.

Every tensor is accounted for before any is read: file headers say which are there and in which shapes, and missing,
unexpected and misshapen keys are listed, never skipped silently.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from safetensors import SafetensorError, safe_open

from blip3o_grpo.configs.regular_files import is_regular, read_text
from blip3o_grpo.policies.blip3o_next.json_files import CheckpointError
from blip3o_grpo.policies.blip3o_next.tied import EMBEDDING, HEAD, is_tied, shared_once, shared_twice

if TYPE_CHECKING:  # headers are read without torch, so that a wrong file is told before it loads
    import torch
    from torch import nn

PREFIXES = {
    "sana": "model.sana.",
    "vae": "model.sana_vae.",
    "connector": "model.diffusion_connector.",
    "vision": "model.vision_tower.vision_tower.",
}
"""Prefix of each part's parameters; the AR part has the rest (Qwen3's own names)."""
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
NUM_LISTED = 10
"""Keys of a kind that a message names before it counts the others."""

log = logging.getLogger(__name__)

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

    Opening it reads the header of every file and no tensor.

    Attributes:
        files: where each tensor is.
        shapes: of each tensor.
        integers: names of the tensors that hold whole numbers or truth values.

    Raises:
        CheckpointError: no weights, a bad index, a shard that is missing, or a file that is no complete safetensors.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        index = folder / INDEX
        if is_regular(folder / SINGLE):
            self.files = dict.fromkeys(_open(folder / SINGLE).keys(), folder / SINGLE)
        elif is_regular(index):
            self.files = _read_index(index)
        else:
            raise CheckpointError(f"{folder}: neither {SINGLE} nor {INDEX} is there")
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.integers: set[str] = set()
        files = sorted(set(self.files.values()))
        for file in files:
            if not is_regular(file):
                raise CheckpointError(f"{index}: names {file.name}, which is missing")
        for file in files:
            handle = _open(file)
            held, named = set(handle.keys()), {name for name, where in self.files.items() if where == file}
            if held != named:
                raise CheckpointError(
                    f"{index}: disagrees with {file.name}; "
                    + _listing({"not in the file": named - held, "not in the index": held - named})
                )
            for name in held:
                tensor = handle.get_slice(name)
                self.shapes[name] = tuple(tensor.get_shape())
                if tensor.get_dtype().startswith(("I", "U", "BOOL")):
                    self.integers.add(name)

    def names(self, part: str) -> list[str]:
        """Released names of a part's tensors, file by file."""
        return sorted((name for name in self.files if part_of(name) == part), key=lambda name: (self.files[name], name))

    def part_shapes(self, part: str) -> dict[str, tuple[int, ...]]:
        """Shapes of a part's tensors by their released names without the part's prefix."""
        return {name.removeprefix(PREFIXES.get(part, "")): self.shapes[name] for name in self.names(part)}

    def read(self, names: Iterable[str]) -> Iterator[tuple[str, torch.Tensor]]:
        """The named tensors one at a time, mapped from the file: copy what outlives it."""
        handles: dict[Path, safe_open] = {}
        for name in names:
            file = self.files[name]
            if file not in handles:
                handles = {file: _open(file, "pt")}
            yield name, handles[file].get_tensor(name)

    def read_part(self, part: str, *, tied: bool = False) -> Iterator[tuple[str, torch.Tensor]]:
        """A part's tensors by released name, as `read`; of a tied AR part what it shares only once."""
        named = {name: name for name in self.names(part)}
        counts_for = {stored: name for name, stored in (shared_once(named) if tied else named).items()}
        for stored, tensor in self.read(counts_for):
            yield counts_for[stored], tensor


def _open(file: Path, framework: Literal["np", "pt"] = "np") -> safe_open:
    """A file's header and, with "pt", its tensors."""
    try:
        return safe_open(file, framework=framework)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file}: not a complete safetensors file ({error})") from error


def _read_index(index: Path) -> dict[str, Path]:
    try:
        names = json.loads(read_text(index))["weight_map"]
        outside = [name for name in names.values() if Path(name).name != name]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{index}: not an index of shards ({type(error).__name__}: {error})") from error
    if outside:
        raise CheckpointError(f"{index}: names {outside[0]!r}, which is not a file of this folder")
    return {key: index.parent / name for key, name in names.items()}


def stored_parts(weights: Weights) -> tuple[str, ...]:
    """Parts to load so that saving loses nothing: `ar`, `head`, and `vision` if the folder has it."""
    return ("ar", "head", "vision") if weights.names("vision") else ("ar", "head")


def check_parts(weights: Weights, parts: Mapping[str, nn.Module]) -> None:
    """The checkpoint has exactly the tensors of these modules, in their shapes; modules may be on the meta device.

    Raises:
        CheckpointError: listing missing, unexpected and misshapen keys of all parts, and those that hold whole numbers
            where the model does not.
    """
    tensors = {
        released_name(part, name): tensor
        for part, module in parts.items()
        for name, tensor in module.state_dict().items()
    }
    expected = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    found = {name: weights.shapes[name] for part in parts for name in weights.names(part)}
    if "ar" in parts and is_tied(parts["ar"]):
        found = shared_twice(found)
    problems = shape_problems(expected, found)
    if problems:
        raise CheckpointError(f"{weights.folder}: the {', '.join(parts)} weights do not fit config.json; {problems}")
    whole = {name for name in tensors.keys() & weights.integers if tensors[name].is_floating_point()}
    if whole:
        raise CheckpointError(f"{weights.folder}: {_listing({'whole numbers instead of floats': whole})}")


def shape_problems(expected: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]]) -> str:
    """What is missing, unexpected or misshapen among named tensors; empty if nothing is."""
    return _listing(
        {
            "missing": expected.keys() - found.keys(),
            "unexpected": found.keys() - expected.keys(),
            "wrong shape": {
                f"{key} {found[key]} instead of {expected[key]}"
                for key in expected.keys() & found.keys()
                if found[key] != expected[key]
            },
        }
    )


def _listing(kinds: Mapping[str, set[str]]) -> str:
    return "; ".join(
        f"{kind}: {', '.join(sorted(keys)[:NUM_LISTED])}"
        + (f" and {len(keys) - NUM_LISTED} more" if len(keys) > NUM_LISTED else "")
        for kind, keys in kinds.items()
        if keys
    )


def load_part(
    weights: Weights,
    part: str,
    module: nn.Module,
    *,
    dtype: torch.dtype | None = None,
    device: str | torch.device = "cpu",
) -> None:
    """Fill `module` with the checkpoint's tensors of `part`, one after the other; a tied AR part stays tied.

    Args:
        dtype: of tensors that replace those of a module on the meta device (default: as stored); a module with
            tensors of its own keeps their dtype and device.
        device: likewise.

    Raises:
        CheckpointError: listing missing, unexpected and misshapen keys, before any is read.
    """
    import torch

    check_parts(weights, {part: module})
    tied = part == "ar" and is_tied(module)
    if tied:
        _warn_of_a_dropped_head(weights)
    names = {released_name(part, name): name for name in module.state_dict()}
    targets = module.state_dict(keep_vars=True)
    assigned = {}
    with torch.no_grad():
        for key, tensor in weights.read_part(part, tied=tied):
            if targets[names[key]].is_meta:
                assigned[names[key]] = tensor.to(device=device, dtype=dtype or tensor.dtype, copy=True)
            else:
                targets[names[key]].copy_(tensor)
    if assigned:
        module.load_state_dict(assigned, strict=False, assign=True)
    if tied:
        module.lm_head.weight = module.model.embed_tokens.weight  # assigning has made the latter a new parameter


def _warn_of_a_dropped_head(weights: Weights) -> None:
    stored = [tensor for _, tensor in weights.read(weights.files.keys() & {HEAD, EMBEDDING})]
    if len(stored) == 2 and not stored[0].equal(stored[1]):
        log.warning(
            "%s: %s differs from %s and is not used, because config.json says tie_word_embeddings: true; a head of its "
            "own needs false there",
            weights.folder,
            HEAD,
            EMBEDDING,
        )


def released_tensors(parts: Mapping[str, nn.Module]) -> dict[str, torch.Tensor]:
    """What is saved of these parts, by released name; of a tied AR part what it shares only once."""
    tensors = {
        released_name(part, name): tensor.detach()
        for part, module in parts.items()
        for name, tensor in module.state_dict().items()
    }
    return shared_once(tensors) if "ar" in parts and is_tied(parts["ar"]) else tensors


def save_parts(folder: Path, parts: Mapping[str, nn.Module], dtype: torch.dtype | None = None) -> None:
    """Write all parts' tensors under their released names (shards of at most 5 GB with an index)."""
    from huggingface_hub import save_torch_state_dict

    tensors = {
        name: tensor.to(dtype or tensor.dtype).cpu().contiguous() for name, tensor in released_tensors(parts).items()
    }
    save_torch_state_dict(tensors, folder)
