"""Folders by name: a path on this machine, or a repository on the Hugging Face hub, `ORG/NAME` or `ORG/NAME@REVISION`.

Only files that cannot run code are fetched: safetensors, JSON and text, never pickles. Without a network the hub's
local cache answers; where it cannot, one message says so before anything is allocated.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from blip3o_grpo.policies.blip3o_next.json_files import CheckpointError, read_json

MAX_LAYERS = 1024
DIFFUSION_CONFIGS = ("transformer/config.json", "vae/config.json", "scheduler/scheduler_config.json")


def fetch(name: str, files: Sequence[str], wanted_by: str) -> Path:
    """Folder with a repository's files, from the hub or its local cache.

    Args:
        name: `ORG/NAME`, with `@REVISION` for a branch, tag or commit.
        files: patterns of the files to fetch.
        wanted_by: start of the error message.

    Raises:
        CheckpointError: no such repository, or neither network nor a cached copy.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    repository, _, revision = name.partition("@")
    try:
        return Path(snapshot_download(repository, revision=revision or None, allow_patterns=list(files)))
    except (HFValidationError, OSError) as error:  # all network and hub errors are OSErrors
        raise CheckpointError(
            f"{wanted_by} is no folder here and could not be had from the Hugging Face hub "
            f"({type(error).__name__}); download it and give its local path"
        ) from error


def diffusion_folder(checkpoint: Path, name: str) -> Path:
    """Folder of the SANA, DC-AE and scheduler configs: `diffusion_name_or_path`, relative to the checkpoint.

    A name that is no folder is taken as a hub repository; only its three small config files are fetched.

    Raises:
        CheckpointError: neither a folder nor to be had from the hub.
    """
    if "\0" in name:
        raise CheckpointError(f"{checkpoint}/config.json: diffusion_name_or_path holds a NUL character")
    folder = checkpoint / name  # an absolute name replaces the checkpoint's folder
    if not folder.is_dir():
        folder = fetch(name, DIFFUSION_CONFIGS, f"{checkpoint}/config.json: diffusion_name_or_path={name!r}")
    for file in DIFFUSION_CONFIGS:
        if not (folder / file).is_file():
            raise CheckpointError(f"{folder}: {file} is missing (named by diffusion_name_or_path in {checkpoint})")
    return folder


def read_diffusion_configs(folder: Path) -> dict[str, dict]:
    """The three configs of a diffusion head by their path.

    Raises:
        CheckpointError: not JSON objects, or with more layers than any model has.
    """
    configs = {name: read_json(folder / name) for name in DIFFUSION_CONFIGS}
    for name, values in configs.items():
        for key, value in values.items():
            for number in value if isinstance(value, list) else [value]:
                if isinstance(number, int) and number > MAX_LAYERS and "layers" in key:
                    raise CheckpointError(f"{folder / name}: {key} is {value}, more than {MAX_LAYERS}")
    return configs
