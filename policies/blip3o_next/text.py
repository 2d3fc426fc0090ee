"""The text side of the AR part: distributions over every row of `lm_head` that is no image token.

Training on images gives these rows no gradient, but the layers below them are shared, so what the policy says of plain
texts moves too. These are the numbers with which that is measured, and held.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from blip3o_grpo.policies.blip3o_next.config import ImageTokens
from blip3o_grpo.policies.blip3o_next.positions import position_ids


def pad_texts(texts: Sequence[Sequence[int]], device: torch.device | str = "cpu") -> tuple[torch.Tensor, torch.Tensor]:
    """Ids `[B, L]` and mask `[B, L]` (1 = real token) of texts, padded on the right."""
    length = max(map(len, texts))
    ids = torch.zeros(len(texts), length, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, text in enumerate(texts):
        ids[row, : len(text)] = torch.as_tensor(text)
        mask[row, : len(text)] = 1
    return ids.to(device), mask.to(device)


def text_logprobs(
    ar: nn.Module,
    ids: torch.Tensor,
    mask: torch.Tensor,
    image_tokens: ImageTokens,
    places: torch.Tensor | None = None,
) -> torch.Tensor:
    """Log-probabilities (nats) over the text vocabulary, `[N, V]` in float32, with gradients.

    N are the places, row after row; V is the vocabulary without the image tokens, in its order. All of it is held at
    once: 4 N V bytes, 0.6 MB a token for the released model.

    Args:
        ar: Qwen3ForCausalLM (unwrapped).
        ids: `[B, L]`, padded on the right.
        mask: `[B, L]`, 1 = real token.
        image_tokens: which rows of `lm_head` take no part.
        places: `[B, L - 1]` bool, tokens whose successor is wanted; default: all that have one.
    """
    output = ar.model(input_ids=ids, attention_mask=mask, position_ids=position_ids(mask), use_cache=False)
    head = ar.lm_head
    # Called as a module for the reason given in `logprobs.image_logprobs`.
    head.forward = partial(_text_head, head, image_tokens)
    try:
        return head(output.last_hidden_state[:, :-1][followed(mask) if places is None else places])
    finally:
        del head.forward


def _text_head(head: nn.Linear, image_tokens: ImageTokens, hidden: torch.Tensor) -> torch.Tensor:
    below, above = head.weight[: image_tokens.start], head.weight[image_tokens.stop :]
    return F.log_softmax(torch.cat([F.linear(hidden, below), F.linear(hidden, above)], 1).float(), dim=1)


def followed(mask: torch.Tensor) -> torch.Tensor:
    """`[B, L - 1]` bool: tokens that another one follows, in rows padded on the right."""
    return mask[:, 1:].bool()


def text_targets(ids: torch.Tensor, places: torch.Tensor, image_tokens: ImageTokens) -> torch.Tensor:
    """What follows at each of the N places, none of it an image token, as an index `[N]` into V."""
    targets = ids[:, 1:][places]
    return torch.where(targets >= image_tokens.stop, targets - image_tokens.size, targets)


def token_kl(logprobs: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
    """KL(start || policy) in nats at each place, `[N]`, exact over the vocabulary.

    In this direction it is large where the policy has lost what the starting one said. Its gradient in the policy's
    logits is p - p_start, so it is bounded however far apart they are.

    Args:
        logprobs: `[N, V]` of the policy.
        start: `[N, V]` of the starting policy.
    """
    return (start.exp() * (start - logprobs)).sum(1)


def sum_by_row(values: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Sum `[B]` of values `[N]` over each row's places `[B, L - 1]`."""
    return values.new_zeros(len(places)).index_add(0, places.nonzero()[:, 0], values)
