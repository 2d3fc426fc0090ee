"""JSON files of a checkpoint, and the error of every checkpoint that cannot be used: at the bottom of this folder."""

from __future__ import annotations

import json
from pathlib import Path

from blip3o_grpo.configs.regular_files import read_text


class CheckpointError(ValueError):
    """A checkpoint folder that cannot be used: names the file and the key."""


def read_json(file: Path) -> dict:
    """A file of one JSON object.

    Raises:
        CheckpointError: missing, not UTF-8, not JSON, or not an object.
    """
    try:
        values = json.loads(read_text(file))
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{file}: not valid JSON ({error})") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{file}: expected an object with keys, found {type(values).__name__}")
    return values
