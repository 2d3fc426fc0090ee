"""Plain texts: what drift of the policy's text side is measured on, and what `trainer.text_kl` replays."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from blip3o_grpo.configs.shipped import RECIPES
from blip3o_grpo.policies import PromptEncoder, PromptError
from blip3o_grpo.rollout.prompts import load_prompts
from blip3o_grpo.rollout.types import Prompt

PLAIN_ENGLISH = RECIPES / "texts" / "plain_english.txt"
"""240 sentences of this project's own, over many subjects."""


def text_file(path: str | Path | None) -> Path:
    """The user's file of texts, or the one that comes along."""
    return PLAIN_ENGLISH if path is None else Path(path)


def load_texts(path: str | Path | None) -> list[Prompt]:
    """All texts of a file in the form of a prompt file, or those that come along.

    Raises:
        PromptError: as `load_prompts`.
    """
    return load_prompts(text_file(path))


def encode_texts(texts: Sequence[Prompt], encoder: PromptEncoder, place: str) -> list[list[int]]:
    """Token ids of every text.

    Args:
        texts: of `load_texts`.
        encoder: of the policy that reads them.
        place: file or key that messages name.

    Raises:
        PromptError: the first text that the policy cannot read as one.
    """
    try:
        return [encoder.encode_text(text.text) for text in texts]
    except PromptError as error:
        raise PromptError(f"{place}: {error}") from None
