"""BLIP3-o's prompt format: Qwen's chat template and the caption request, with `[IMG]` opening the image.

The latent queries that follow are no tokens: the policy appends their embeddings.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from blip3o_grpo.configs.regular_files import is_regular
from blip3o_grpo.policies.blip3o.config import read_config
from blip3o_grpo.policies.blip3o_next.config import one_line, resolve_policy_path
from blip3o_grpo.policies.blip3o_next.json_files import CheckpointError
from blip3o_grpo.policies.blip3o_next.plain_tokenizer import PlainTokenizer
from blip3o_grpo.policies.blip3o_next.prompt_encoder import PromptEncoder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

IMAGE_START = "[IMG]"


class QueryPromptEncoder(PromptEncoder):
    """Turns captions into token ids that end in `[IMG]`."""

    opening = IMAGE_START

    @classmethod
    def from_pretrained(cls, path: str | Path, *, plain: bool = False) -> QueryPromptEncoder:
        """Load the tokenizer of a BLIP3-o's folder; needs no weights.

        Args:
            path: a folder.
            plain: read the same files without transformers: for checks, before any large library is imported.

        Raises:
            CheckpointError: the tokenizer is missing or does not hold `[IMG]` where the config says.
        """
        folder = resolve_policy_path(path)
        config = read_config(folder)
        if not is_regular(folder / "tokenizer.json"):
            raise CheckpointError(f"{folder}: tokenizer.json is missing")
        try:
            tokenizer = PlainTokenizer(folder) if plain else _library_tokenizer(folder)
        except Exception as error:  # the tokenizers library raises plain `Exception` for a broken file
            raise CheckpointError(f"{folder}: the tokenizer cannot be read ({one_line(error)})") from error
        found, expected = tokenizer.get_vocab().get(IMAGE_START), config["image_start_token_id"]
        if found != expected:
            raise CheckpointError(
                f"{folder}: the tokenizer's {IMAGE_START} has id {found}, config.json says {expected}"
            )
        length, queries = config["ar"]["max_position_embeddings"], config["num_queries"]
        if length <= queries:
            raise CheckpointError(
                f"{folder}/config.json: ar.max_position_embeddings={length} leaves no room for a prompt beside "
                f"num_queries={queries}"
            )
        encoder = cls(tokenizer, length - queries, folder)
        encoder.check_template()
        return encoder


def _library_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast.from_pretrained(folder)
