"""Prompt format: Qwen's chat template, the caption request, and the `<im_start><S0>` that opens an image.

The rendered text is tokenised without added special tokens; batches are padded on the left.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from policies.config import CheckpointError, image_tokens, load_config, resolve_policy_path

SYSTEM = "You are a helpful assistant."
REQUEST = "Please generate image based on the following caption: {prompt}"
IMAGE_OPENING = "<im_start><S0>"


class PromptError(ValueError):
    """A prompt that cannot be used: names it and says why."""


class PromptEncoder:
    """Turns captions into token ids that end in `<im_start><S0>`."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_length: int):
        self.tokenizer = tokenizer
        self.max_length = max_length

    @classmethod
    def from_pretrained(cls, path: str | Path) -> PromptEncoder:
        """Load the tokenizer of a checkpoint folder; needs no weights.

        Raises:
            CheckpointError: the tokenizer is missing or does not hold the image tokens where the config says.
        """
        folder = resolve_policy_path(path)
        config = load_config(folder)
        if not (folder / "tokenizer.json").is_file():
            raise CheckpointError(f"{folder}: tokenizer.json is missing")
        tokenizer = AutoTokenizer.from_pretrained(folder, config=config)
        expected = {
            "<im_start>": config.image_start_tag_id,
            "<im_end>": config.image_end_tag_id,
            "<S0>": config.scale_start_token_id,
            "<I0>": config.image_start_token_id,
            f"<I{config.num_image_tokens - 1}>": config.image_end_token_id,
        }
        vocabulary = tokenizer.get_vocab()
        for token, token_id in expected.items():
            if vocabulary.get(token) != token_id:
                raise CheckpointError(
                    f"{folder}/tokenizer.json: token {token} has id {vocabulary.get(token)}, "
                    f"config.json says {token_id}"
                )
        return cls(tokenizer, config.max_position_embeddings - image_tokens(config).num_tokens)

    def render(self, prompt: str) -> str:
        """The text the policy reads, image opening included."""
        messages = [
            {"role": "system", "content": SYSTEM},
            {"role": "user", "content": REQUEST.format(prompt=prompt)},
        ]
        return self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True) + IMAGE_OPENING

    def encode(self, prompt: str) -> list[int]:
        """Token ids of one caption.

        Raises:
            PromptError: empty, or longer than the context leaves room for.
        """
        if not prompt.strip():
            raise PromptError("a prompt is empty")
        ids = self.tokenizer(self.render(prompt), add_special_tokens=False)["input_ids"]
        if len(ids) > self.max_length:
            raise PromptError(
                f"prompt {prompt[:60]!r}… is {len(ids)} tokens long; "
                f"the model's context leaves room for {self.max_length}"
            )
        return ids

    def pad(self, sequences: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Left-pad to the longest: ids `[B, L]` and mask `[B, L]` (1 = real token)."""
        longest = max(len(sequence) for sequence in sequences)
        ids = torch.zeros(len(sequences), longest, dtype=torch.long)
        mask = torch.zeros(len(sequences), longest, dtype=torch.long)
        for row, sequence in enumerate(sequences):
            ids[row, longest - len(sequence) :] = torch.as_tensor(sequence)
            mask[row, longest - len(sequence) :] = 1
        return ids, mask
