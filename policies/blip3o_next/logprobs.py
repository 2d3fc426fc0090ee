"""Log-probabilities of image tokens over the image vocabulary only, a few rows at a time.

Text rows of `lm_head` (about 150,000 of 217,000 at full size) take no part: the sampler cannot draw them. The logits
of a batch are never held at once, neither forward nor backward: a chunk's logits are computed, reduced to one number a
token and dropped, and computed again when the gradient is wanted. What is kept is one float per token, so the peak
depends on neither the size of the vocabulary nor the number of tokens, at the price of one more product with `lm_head`.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from blip3o_grpo.policies.blip3o_next.config import ImageTokens
from blip3o_grpo.policies.blip3o_next.positions import position_ids
from blip3o_grpo.policies.blip3o_next.prefill import completions_of_rows

LOGITS_AT_ONCE = 2**26
"""Values of one chunk's logits: 256 MiB in float32, 1,024 tokens of the released model's 65,536 image tokens."""


def image_logprobs(
    ar: nn.Module,
    ids: torch.Tensor,
    mask: torch.Tensor,
    image_tokens: ImageTokens,
    temperature: float = 1.0,
    entropy: bool = False,
    share_prompts: bool = False,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Log-probability (nats) of the last `T = image_tokens.num_tokens` ids of each row, given what precedes them.

    Args:
        ar: Qwen3ForCausalLM (unwrapped).
        ids: `[B, L + T]` prompt and image tokens, left-padded.
        mask: `[B, L + T]`, 1 = real token.
        temperature: divides the logits, as in the sampler.
        entropy: also return the policy's entropy at each position.
        share_prompts: read a prompt that neighbouring rows have in common once, where that pays (`prefill.py`).

    Returns:
        Log-probabilities `[B, T]` in float32 and entropies `[B, T]` (or None).
    """
    length = image_tokens.num_tokens
    if share_prompts:
        hidden = completions_of_rows(ar, ids[:, :-1], mask[:, :-1], length - 1)
    else:
        hidden = ar.model(
            input_ids=ids, attention_mask=mask, position_ids=position_ids(mask), use_cache=False
        ).last_hidden_state[:, -length - 1 : -1]
    head, image = ar.lm_head, slice(image_tokens.start, image_tokens.stop)
    # The head is called as a module, with our computation in the place of its own, because FSDP and DeepSpeed gather
    # a module's sharded weights when it is called.
    head.forward = partial(_score_with_head, head, image, ids[:, -length:] - image_tokens.start, temperature, entropy)
    try:
        return head(hidden)
    finally:
        del head.forward


def _score_with_head(
    head: nn.Linear, image: slice, targets: torch.Tensor, temperature: float, entropy: bool, hidden: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor | None]:
    return token_logprobs(hidden, head.weight[image], targets, temperature, entropy)


def token_logprobs(
    hidden: torch.Tensor,
    rows: torch.Tensor,
    targets: torch.Tensor,
    temperature: float = 1.0,
    entropy: bool = False,
    logits_at_once: int = LOGITS_AT_ONCE,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Log-softmax of `hidden @ rows.T / temperature` at `targets`, and its entropy, both with gradients.

    Under autocast the product is taken in autocast's dtype; everything after it is in float32.

    Args:
        hidden: `[..., D]`.
        rows: `[K, D]`.
        targets: `[...]`, 0..K-1.
        temperature: divides the logits.
        entropy: also return the entropy (nats).
        logits_at_once: values per chunk of logits; at least one token is computed at a time.

    Returns:
        Log-probabilities `[...]` in float32, entropies `[...]` in float32 or None.
    """
    if torch.is_autocast_enabled(hidden.device.type):
        dtype = torch.get_autocast_dtype(hidden.device.type)
        hidden, rows = hidden.to(dtype), rows.to(dtype)
    chunk = max(1, logits_at_once // len(rows))
    flat = hidden.reshape(-1, hidden.shape[-1])
    logprobs, entropies = _TokenLogprobs.apply(flat, rows, targets.reshape(-1), temperature, entropy, chunk)
    return logprobs.view(targets.shape), entropies.view(targets.shape) if entropy else None


class _TokenLogprobs(torch.autograd.Function):
    """`[N, D], [K, D], [N] -> [N], [N]`; keeps its inputs and the entropy `[N]`."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        rows: torch.Tensor,
        targets: torch.Tensor,
        temperature: float,
        entropy: bool,
        chunk: int,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        chosen = hidden.new_empty(len(hidden), dtype=torch.float32)
        entropies = torch.empty_like(chosen) if entropy else None
        with torch.autocast(hidden.device.type, enabled=False):
            for part in _slices(len(hidden), chunk):
                logprobs = _log_softmax(hidden[part], rows, temperature)
                chosen[part] = logprobs.gather(1, targets[part, None]).squeeze(1)
                if entropy:
                    entropies[part] = -torch.linalg.vecdot(logprobs.exp(), logprobs)
        ctx.save_for_backward(hidden, rows, targets, entropies)
        ctx.temperature, ctx.chunk = temperature, chunk
        ctx.set_materialize_grads(False)
        return chosen, entropies

    @staticmethod
    def backward(
        ctx: Any, grad: torch.Tensor | None, grad_entropy: torch.Tensor | None
    ) -> tuple[torch.Tensor | None, ...]:
        hidden, rows, targets, entropies = ctx.saved_tensors
        grad = hidden.new_zeros(len(hidden), dtype=torch.float32) if grad is None else grad
        hidden_wanted, rows_wanted = ctx.needs_input_grad[:2]
        grad_hidden = torch.empty_like(hidden) if hidden_wanted else None
        grad_rows = torch.zeros_like(rows, dtype=torch.float32) if rows_wanted else None
        with torch.autocast(hidden.device.type, enabled=False):
            for part in _slices(len(hidden), ctx.chunk):
                logprobs = _log_softmax(hidden[part], rows, ctx.temperature)
                # d log p_t / d logit_j = [j = t] - p_j;  d H / d logit_j = -p_j (log p_j + H)
                factor = -grad[part, None]
                if grad_entropy is not None:
                    factor = factor - grad_entropy[part, None] * (logprobs + entropies[part, None])
                grad_logits = logprobs.exp_().mul_(factor)
                grad_logits.scatter_add_(1, targets[part, None], grad[part, None])
                grad_logits = grad_logits.div_(ctx.temperature).to(rows.dtype)
                if hidden_wanted:
                    torch.mm(grad_logits, rows, out=grad_hidden[part])
                if rows_wanted:
                    grad_rows += grad_logits.T @ hidden[part]
        return grad_hidden, None if grad_rows is None else grad_rows.to(rows.dtype), None, None, None, None


def _slices(length: int, chunk: int) -> list[slice]:
    return [slice(start, start + chunk) for start in range(0, length, chunk)]


def _log_softmax(hidden: torch.Tensor, rows: torch.Tensor, temperature: float) -> torch.Tensor:
    """`[n, K]` float32; the product is in the inputs' dtype, as in the sampler."""
    logits = F.linear(hidden, rows).float()
    return F.log_softmax(logits if temperature == 1.0 else logits.div_(temperature), dim=1)
