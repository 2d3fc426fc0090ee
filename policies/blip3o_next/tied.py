"""Tied embeddings: with `tie_word_embeddings: true`, `lm_head.weight` and `model.embed_tokens.weight` are one tensor.

A file may hold it under either name or under both: the released class's own `save_pretrained` writes the embedding,
ZeRO-1 writes both, and tools that drop one of two equal tensors keep the head, which comes first in the alphabet. Where
both are there, the embedding counts, as in the transformers 4.51 of the released code (newer ones untie two that
differ).
What we write and send holds the embedding only. Needs no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import torch
    from torch import nn

HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"
TIE = "tie_word_embeddings"
"""The key of `config.json`; absent or null: false, as for Qwen3."""

Value = TypeVar("Value")


def is_tied(ar: nn.Module) -> bool:
    """Whether embedding and head of an AR part are one parameter, whatever its configuration says."""
    return ar.lm_head.weight is ar.model.embed_tokens.weight


def shared_once(tensors: Mapping[str, Value]) -> dict[str, Value]:
    """What a tied AR part is made of, by name: the shared tensor under the embedding's name only."""
    once = {name: value for name, value in tensors.items() if name != HEAD}
    return once if EMBEDDING in once or HEAD not in tensors else once | {EMBEDDING: tensors[HEAD]}


def shared_twice(tensors: Mapping[str, Value]) -> dict[str, Value]:
    """Tensors of a tied AR part under all names of its state dict: where one of the two is absent, it is the other."""
    names = {HEAD: EMBEDDING, EMBEDDING: HEAD}
    return {name: tensors[other] for name, other in names.items() if other in tensors} | dict(tensors)


def load_weights(ar: nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    """`ar.load_state_dict`, of tensors that hold what a tied part shares once or twice."""
    ar.load_state_dict(shared_twice(shared_once(tensors)) if is_tied(ar) else tensors)
