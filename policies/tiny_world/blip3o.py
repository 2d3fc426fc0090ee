"""A tiny BLIP3-o: the classes of `policies/blip3o` with small numbers, over the features of the tiny world's DC-AE.

The world has no CLIP of its own. Its DC-AE's latents take the place: a picture has 7 x 7 vectors of 32 numbers, each of
mean 0 and variance 1 over the world's patches, and a decoder that paints them exactly and forgives noise is trained
already. VQ-SigLIP2's features would be nearer to CLIP's, but nothing decodes them to pixels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast

from blip3o_grpo.policies.blip3o.config import MODEL_TYPE
from blip3o_grpo.policies.blip3o.dit import start_neutral
from blip3o_grpo.policies.blip3o.policy import BLIP3o
from blip3o_grpo.policies.blip3o.prompt_encoder import QueryPromptEncoder
from blip3o_grpo.policies.blip3o_next.tokenizer_files import make_readable
from blip3o_grpo.policies.tiny_world.architecture import (
    AUTOENCODER,
    LATENT_CHANNELS,
    SCHEDULER,
    TRANSFORMER,
    chat_tokenizer,
)

NUM_QUERIES = 16
WIDTH = 128
AR = {
    "hidden_size": WIDTH,
    "intermediate_size": 320,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [4, 6, 6]},
}
DIT = {
    "sample_size": TRANSFORMER["sample_size"],
    "patch_size": 1,
    "in_channels": LATENT_CHANNELS,
    "hidden_size": WIDTH,
    "num_layers": 3,
    "num_attention_heads": 4,
    "num_kv_heads": 4,
    "multiple_of": 32,
    "learn_sigma": False,
    "qk_norm": True,
    "cross_attention_dim": WIDTH,
}


def make_config(tokenizer: PreTrainedTokenizerFast, num_queries: int = NUM_QUERIES) -> dict[str, Any]:
    """What `config.json` of a tiny BLIP3-o says."""
    ids = {
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
    }
    return {
        "model_type": MODEL_TYPE,
        "num_queries": num_queries,
        "image_start_token_id": tokenizer.convert_tokens_to_ids("[IMG]"),
        "ar": AR | ids,
        "dit": dict(DIT),
        "pixel_decoder": dict(AUTOENCODER),
        "scheduler": dict(SCHEDULER),
    }


def random_blip3o(
    folder: str | Path, seed: int = 0, corpus: list[str] | None = None, num_queries: int = NUM_QUERIES
) -> Path:
    """Write a tiny BLIP3-o with random weights and return its folder.

    Args:
        folder: created if missing.
        seed: of the weights.
        corpus: captions whose lower-case words become tokens; by default a few of the tiny world's.
        num_queries: latent queries.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = chat_tokenizer(corpus or ["a photo of two blue circles"], ["[IMG]", "[/IMG]", "<image>"])
    tokenizer.save_pretrained(folder)
    make_readable(folder)
    state = torch.get_rng_state()
    torch.manual_seed(seed)
    prompts = QueryPromptEncoder(tokenizer, AR["max_position_embeddings"] - num_queries, folder)
    policy = BLIP3o(make_config(tokenizer, num_queries), prompts)
    start_neutral(policy.dit)
    torch.set_rng_state(state)
    policy.save_pretrained(folder)
    return folder
