"""What has to be settled before TRL is imported; import this module first wherever TRL is needed."""

from __future__ import annotations

import os

os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

from trl import import_utils  # noqa: E402


def no_vllm(min_version: str | None = None) -> bool:
    """In place of TRL's `is_vllm_available`."""
    return False


# The rollouts have their own engine, but TRL would import vLLM: a third of the trainer's start, and 0.15 GB.
import_utils.is_vllm_available = no_vllm
