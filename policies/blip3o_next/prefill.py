"""Hidden states of groups: where it pays, a prompt is read once for all its completions, which see its keys and values.

What a completion adds to them is not kept, so nothing grows with the number of layers. Completions that look back at a
prompt need an attention mask where whole sequences of one length do with a causal kernel, so sharing has its price: it
pays for the tiny policy, whose prompts are as long as its images, and not for 729 image tokens (`docs/gpu.md`).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Protocol

import torch
from torch import nn
from transformers.cache_utils import Cache, DynamicLayer

from blip3o_grpo.policies.blip3o_next.positions import position_ids

if TYPE_CHECKING:
    from blip3o_grpo.policies.blip3o_next.prompt_encoder import PromptEncoder

SHARED_FROM = 0.25
"""Share of an image's tokens from which on a prompt is read once per group."""


class Reader(Protocol):
    """What is asked of a policy here.

    Attributes:
        ar: Qwen3ForCausalLM.
        prompts: the prompt format.
    """

    ar: nn.Module
    prompts: PromptEncoder

    def hidden_states(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Last hidden states of `<S0>` and the image tokens, `[B, T + 1, D]`, of prompts and tokens `[B, L + T]`."""


class _PromptLayer(DynamicLayer):
    """Keys and values `[P, H, L, d]` of the prompts, as seen by completion `i` of prompt `owners[i]`."""

    def __init__(self, prompts: DynamicLayer, owners: torch.Tensor):
        super().__init__()
        self.keys, self.values, self.owners = prompts.keys, prompts.values, owners
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values `[B, H, L + T, d]` of prompts and completions; the layer stays as it is."""
        return (
            torch.cat([self.keys[self.owners], key_states], dim=-2),
            torch.cat([self.values[self.owners], value_states], dim=-2),
        )


def group_hidden_states(
    ar: nn.Module, ids: torch.Tensor, mask: torch.Tensor, tokens: torch.Tensor, sizes: Sequence[int]
) -> torch.Tensor:
    """Last hidden states of `<S0>` and the image tokens, `[B, T + 1, D]`: those of `BLIP3oNext.hidden_states`.

    Args:
        ar: Qwen3ForCausalLM.
        ids: `[P, L]` different prompts, left-padded, ending in `<im_start><S0>`.
        mask: `[P, L]`, 1 = real token.
        tokens: `[B, T]` image tokens, the completions of one prompt after the other.
        sizes: completions of each prompt; their sum is B.
    """
    positions = position_ids(mask)
    prompts = ar.model(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=True)
    owners = torch.arange(len(ids), device=ids.device).repeat_interleave(torch.tensor(sizes, device=ids.device))
    completions = ar.model(
        input_ids=tokens,
        attention_mask=torch.cat([mask[owners], torch.ones_like(tokens)], dim=1),
        position_ids=positions[owners, -1:] + torch.arange(1, tokens.shape[1] + 1, device=ids.device),
        past_key_values=Cache(layers=[_PromptLayer(layer, owners) for layer in prompts.past_key_values.layers]),
        use_cache=True,
    )
    return torch.cat([prompts.last_hidden_state[owners, -1:], completions.last_hidden_state], dim=1)


def completions_of_rows(ar: nn.Module, ids: torch.Tensor, mask: torch.Tensor, length: int) -> torch.Tensor:
    """Last hidden states of the last `length` tokens of each row and of the one before them, `[B, length + 1, D]`.

    Neighbouring rows with the same prompt share its reading where that pays; gradients flow through it.

    Args:
        ar: Qwen3ForCausalLM.
        ids: `[B, L + length]` prompts, left-padded, and image tokens.
        mask: `[B, L + length]`, 1 = real token.
        length: image tokens of a row.
    """
    padding = int((mask.sum(0) == 0).sum())  # columns that are padding in every row
    ids, mask = ids[:, padding:], mask[:, padding:]
    prompts = torch.cat([ids[:, :-length], mask[:, :-length]], 1)  # the id of the padding may also stand for itself
    sizes = torch.unique_consecutive(prompts, dim=0, return_counts=True)[1]
    first = sizes.cumsum(0) - sizes
    if len(first) == len(ids) or ids.shape[1] - length < SHARED_FROM * length:
        states = ar.model(input_ids=ids, attention_mask=mask, position_ids=position_ids(mask), use_cache=False)
        return states.last_hidden_state[:, -length - 1 :]
    return group_hidden_states(ar, ids[first, :-length], mask[first, :-length], ids[:, -length:], sizes.tolist())


def completion_hidden_states(policy: Reader, prompt_ids: Sequence[Sequence[int]], tokens: torch.Tensor) -> torch.Tensor:
    """Last hidden states of `<S0>` and the image tokens, `[B, T + 1, D]`, the cheaper way.

    Args:
        policy: with the part `ar`.
        prompt_ids: ids of each row's prompt, ending in `<im_start><S0>`; equal neighbours are a group.
        tokens: `[B, T]` vocabulary ids.
    """
    device = policy.ar.device
    tokens = tokens.to(device)
    if max(map(len, prompt_ids)) < SHARED_FROM * tokens.shape[1]:
        ids, mask = (tensor.to(device) for tensor in policy.prompts.pad(prompt_ids))
        return policy.hidden_states(torch.cat([ids, tokens], 1), torch.cat([mask, torch.ones_like(tokens)], 1))
    groups = [(prompt, len(list(rows))) for prompt, rows in groupby(map(tuple, prompt_ids))]
    ids, mask = (tensor.to(device) for tensor in policy.prompts.pad([prompt for prompt, _ in groups]))
    return group_hidden_states(policy.ar, ids, mask, tokens, [size for _, size in groups])
