"""Prompt format: Qwen's chat template, the caption request, and the `<im_start><S0>` that opens an image.

The rendered text is tokenised without added special tokens; batches are padded on the left.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blip3o_grpo.configs.regular_files import is_regular
from blip3o_grpo.policies.blip3o_next.config import (
    image_tokens,
    load_config,
    one_line,
    plain_config,
    resolve_policy_path,
)
from blip3o_grpo.policies.blip3o_next.json_files import CheckpointError
from blip3o_grpo.policies.blip3o_next.plain_tokenizer import PlainTokenizer
from blip3o_grpo.policies.blip3o_next.tokenizer_files import copy_tokenizer, make_readable

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

    AnyTokenizer = PreTrainedTokenizerBase | PlainTokenizer

SYSTEM = "You are a helpful assistant."
REQUEST = "Please generate image based on the following caption: {prompt}"
IMAGE_OPENING = "<im_start><S0>"
PROBE = "a sign"
_UNUSABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
_TOKEN = re.compile(r"<[^<>\s]+>|\[/?IMG\]")
"""What Qwen's and the image's own tokens look like."""


class PromptError(ValueError):
    """A prompt that cannot be used: names it and says why."""


def unusable_character(text: str) -> str | None:
    """The first control character (but for tab and line breaks) or half of a surrogate pair, as `U+0000`."""
    found = _UNUSABLE.search(text)
    return f"U+{ord(found[0]):04X}" if found else None


class PromptEncoder:
    """Turns captions into token ids that end in `<im_start><S0>`.

    Attributes:
        opening: what follows the rendered template.
    """

    opening = IMAGE_OPENING

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase | PlainTokenizer, max_length: int, folder: Path | None = None
    ):
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.folder = folder

    @classmethod
    def from_pretrained(cls, path: str | Path, *, plain: bool = False) -> PromptEncoder:
        """Load the tokenizer of a checkpoint folder; needs no weights.

        Args:
            path: a folder in the released layout, or the name of a hub repository.
            plain: read the same files without transformers: for checks, before any large library is imported.

        Raises:
            CheckpointError: the tokenizer is missing or does not hold the image tokens where the config says.
        """
        folder = resolve_policy_path(path)
        config = plain_config(folder)
        if not is_regular(folder / "tokenizer.json"):
            raise CheckpointError(f"{folder}: tokenizer.json is missing")
        try:
            tokenizer = PlainTokenizer(folder) if plain else _library_tokenizer(folder)
        except Exception as error:  # the tokenizers library raises plain `Exception` for a broken file
            raise CheckpointError(f"{folder}: the tokenizer cannot be read ({one_line(error)})") from error
        check_image_tokens(tokenizer, config, folder)
        num_tokens = image_tokens(config).num_tokens
        if config.max_position_embeddings <= num_tokens:
            raise CheckpointError(
                f"{folder}/config.json: max_position_embeddings={config.max_position_embeddings} leaves no room for a "
                f"prompt beside the {num_tokens} tokens of an image"
            )
        encoder = cls(tokenizer, config.max_position_embeddings - num_tokens, folder)
        encoder.check_template()
        return encoder

    def check_template(self) -> None:
        """The chat template can be rendered, and what it renders holds the prompt.

        Raises:
            CheckpointError: it cannot, or does not.
        """
        try:
            rendered = self.render(PROBE)
        except Exception as error:  # a template is a program
            raise CheckpointError(f"{self.folder}: its chat template fails ({one_line(error)})") from error
        if PROBE not in rendered:
            raise CheckpointError(f"{self.folder}: its chat template leaves the prompt out")

    def save(self, folder: Path) -> None:
        """Write the tokenizer's files into a checkpoint folder: those it was loaded from, byte for byte.

        Releases of transformers write them differently, and the released code wants its own: what a newer release wrote
        is put in words that it knows.
        """
        if self.folder is None or not self.folder.is_dir():
            self.tokenizer.save_pretrained(folder)
            make_readable(folder)
        elif self.folder.resolve() != folder.resolve():
            copy_tokenizer(self.folder, folder)

    def render(self, prompt: str) -> str:
        """The text the policy reads, image opening included."""
        messages = [
            {"role": "system", "content": SYSTEM},
            {"role": "user", "content": REQUEST.format(prompt=prompt)},
        ]
        return self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True) + self.opening

    def encode(self, prompt: str) -> list[int]:
        """Token ids of one caption.

        Raises:
            PromptError: empty, longer than the context leaves room for, or with a token of the format in it, which the
                policy would read as such.
        """
        if not prompt.strip():
            raise PromptError("a prompt is empty")
        if character := unusable_character(prompt):
            raise PromptError(f"prompt {prompt[:60]!r} holds the character {character}, which is no text")
        if word := self.format_token(prompt):
            raise PromptError(f"prompt {prompt[:60]!r} holds {word}, which the policy reads as a token of its own")
        ids = self.tokenizer(self.render(prompt), add_special_tokens=False)["input_ids"]
        if len(ids) > self.max_length:
            raise PromptError(
                f"prompt {prompt[:60]!r}… is {len(ids)} tokens long; "
                f"the model's context leaves room for {self.max_length}"
            )
        return ids

    def encode_text(self, text: str) -> list[int]:
        """Token ids of a plain text, outside the prompt format.

        Raises:
            PromptError: fewer than two tokens, of which the second is the first that is predicted; more than the
                context holds beside an image; or a character or token that is no text.
        """
        shown = repr(text[:60])
        if character := unusable_character(text):
            raise PromptError(f"text {shown} holds the character {character}, which is no text")
        if word := self.format_token(text):
            raise PromptError(f"text {shown} holds {word}, which the policy reads as a token of its own")
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        if len(ids) < 2:
            raise PromptError(f"text {shown} is one token, and nothing comes before it that could predict it")
        if len(ids) > self.max_length:
            raise PromptError(
                f"text {shown}… is {len(ids)} tokens long; the model's context leaves room for {self.max_length}"
            )
        return ids

    def format_token(self, text: str) -> str | None:
        """The first token of the format or of an image that is written out in a text, such as `<I5>`."""
        return next((word for word in _TOKEN.findall(text) if word in self.tokenizer.added_tokens_encoder), None)

    def pad(self, sequences: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Left-pad to the longest: ids `[B, L]` and mask `[B, L]` (1 = real token)."""
        import torch

        longest = max(len(sequence) for sequence in sequences)
        ids = torch.zeros(len(sequences), longest, dtype=torch.long)
        mask = torch.zeros(len(sequences), longest, dtype=torch.long)
        for row, sequence in enumerate(sequences):
            ids[row, longest - len(sequence) :] = torch.as_tensor(sequence)
            mask[row, longest - len(sequence) :] = 1
        return ids, mask


def _library_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, config=load_config(folder), trust_remote_code=False)


def check_image_tokens(tokenizer: AnyTokenizer, config: Any, folder: Path) -> None:
    """Every tag, scale and image token has the id that the configuration says.

    Raises:
        CheckpointError: naming the first that has not.
    """
    expected = {"<im_start>": config.image_start_tag_id, "<im_end>": config.image_end_tag_id}
    expected |= {f"<S{i}>": config.scale_start_token_id + i for i in range(config.num_scale_tokens)}
    expected |= {f"<I{i}>": config.image_start_token_id + i for i in range(config.num_image_tokens)}
    vocabulary = tokenizer.get_vocab()
    absent = [token for token in expected if token not in vocabulary]
    if absent:
        raise CheckpointError(
            f"{folder}: the tokenizer lacks {len(absent)} of the model's image tokens, {absent[0]} first; "
            "it is not the tokenizer this model was trained with"
        )
    for token, token_id in expected.items():
        if vocabulary[token] != token_id:
            raise CheckpointError(
                f"{folder}: the tokenizer's {token} has id {vocabulary[token]}, config.json says {token_id}"
            )
