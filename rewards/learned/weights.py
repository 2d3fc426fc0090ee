"""Weights by path, or by a name on the Hugging Face hub whose files lie in its cache; nothing is downloaded here."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from blip3o_grpo.configs.names import HUB_NAME
from blip3o_grpo.rewards.types import RewardError

if TYPE_CHECKING:
    from torch import Tensor

_FILES = (".pt", ".pth", ".bin", ".safetensors")
"""What a name ends with that means a file, also where it looks like a repository's."""


def find_file(name: str, file: str, place: str) -> Path:
    """The one file that `name` means.

    Args:
        name: a path, or `ORG/NAME` (`ORG/NAME@REVISION`) on the hub.
        file: which file of the repository.
        place: reward and option, for messages.

    Raises:
        RewardError: there is no such file, or the repository's lies not in the cache, with the command that fetches it.
    """
    path = _path(name, place)
    if path.is_file():
        return path
    if path.suffix in _FILES or not HUB_NAME.fullmatch(name):
        raise RewardError(f"{place}: {name!r} is no file here, nor ORG/NAME on the Hugging Face hub")
    found = _cached(name, file, place)
    if found is None:
        raise _not_here(name, [file], place)
    return found


def find_folder(name: str, files: Sequence[Sequence[str]], place: str) -> Path:
    """The folder that `name` means.

    Args:
        name: a path, or `ORG/NAME` (`ORG/NAME@REVISION`) on the hub.
        files: what must be in it; of each entry one of the names is enough, the first of them being fetched.
        place: reward and option, for messages.

    Raises:
        RewardError: there is no such folder, it lacks a file, or the repository's lie not in the cache, with the
            command that fetches them.
    """
    path = _path(name, place)
    if path.is_dir():
        missing = [either for either in files if not any((path / file).is_file() for file in either)]
        if missing:
            raise RewardError(f"{place}: {name!r} has no {' or '.join(missing[0])}")
        return path
    if not HUB_NAME.fullmatch(name):
        raise RewardError(f"{place}: {name!r} is no folder here, nor ORG/NAME on the Hugging Face hub")
    found = [next((hit for file in either if (hit := _cached(name, file, place))), None) for either in files]
    if found[0] is None or None in found:
        raise _not_here(name, [either[0] for either in files], place)
    return found[0].parent


def load_tensors(path: Path, place: str) -> dict[str, Tensor]:
    """Weights in a file of tensors by name, on the CPU; nothing pickled is run.

    Raises:
        RewardError: it cannot be read, or holds other things than tensors.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, ValueError, pickle.UnpicklingError, SafetensorError) as error:
        raise RewardError(f"{place}: {str(path)!r} cannot be read: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(found, dict) or not all(isinstance(value, torch.Tensor) for value in found.values()):
        raise RewardError(f"{place}: {str(path)!r} holds no tensors by name")
    return found


def _path(name: str, place: str) -> Path:
    if not isinstance(name, str) or not name.strip() or "\0" in name:
        raise RewardError(f"{place}: found {name!r}; give a path, or ORG/NAME on the Hugging Face hub")
    try:
        return Path(name).expanduser()
    except RuntimeError as error:
        raise RewardError(f"{place}: {name!r}: no such user on this machine") from error


def _cached(name: str, file: str, place: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    repository, _, revision = name.partition("@")
    try:
        found = try_to_load_from_cache(repository, file, revision=revision or None)
    except HFValidationError as error:
        raise RewardError(f"{place}: {name!r} is no name of the Hugging Face hub") from error
    return Path(found) if isinstance(found, str) else None


def _not_here(name: str, files: Sequence[str], place: str) -> RewardError:
    repository, _, revision = name.partition("@")
    command = " ".join(["hf download", repository, *files, *(["--revision", revision] if revision else [])])
    return RewardError(f"{place}: {name!r} is not on this machine; fetch it once with: {command} (or give a path)")
