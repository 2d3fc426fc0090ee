"""Cross-attention of the diffusion head whose keys and values are computed once per image, not once per step.

SANA's cross-attention sees the caption only through keys and values, which do not depend on the time step; so all steps
of one image share them. The unconditional branch of classifier-free guidance repeats one vector for every caption
position: its keys are all equal, its softmax is uniform whatever the query, and its result is one vector per block.
Outputs stay what diffusers' own processor gives, within rounding. Left out: training, whose keys and values change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from diffusers import SanaTransformer2DModel
from diffusers.models.attention_processor import Attention


class FixedCaption:
    """A processor of one block's cross-attention with the caption already read.

    Attributes:
        key, value: `[B, heads, T, head_dim]` of the conditional rows, which come last in a batch.
        nothing: `[1, 1, D]`, this block's cross-attention of any unconditional position; None without guidance.
    """

    def __init__(self, attn: Attention, caption: torch.Tensor, nothing: torch.Tensor | None):
        self.key, self.value = self._read(attn, caption)
        self.nothing = None
        if nothing is not None:
            value = attn.to_v(nothing)  # the mean of equal vectors
            self.nothing = self._project(attn, value)

    @staticmethod
    def _read(attn: Attention, caption: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        key, value = attn.to_k(caption), attn.to_v(caption)
        if attn.norm_k is not None:
            key = attn.norm_k(key)
        return _by_head(key, attn.heads), _by_head(value, attn.heads)

    @staticmethod
    def _project(attn: Attention, attended: torch.Tensor) -> torch.Tensor:
        return attn.to_out[0](attended) / attn.rescale_output_factor  # to_out[1] is dropout: nothing learns here

    def __call__(
        self,
        attn: Attention,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Cross-attention `[U + B, N, D]` of rows `[U + B, N, D]`: only the last B have captions."""
        rows, positions, _ = hidden_states.shape
        captions = len(self.key)
        query = attn.to_q(hidden_states[rows - captions :])
        if attn.norm_q is not None:
            query = attn.norm_q(query)
        attended = F.scaled_dot_product_attention(_by_head(query, attn.heads), self.key, self.value)
        attended = attended.transpose(1, 2).flatten(2).to(query.dtype)
        found = self._project(attn, attended)
        if rows == captions:
            return found
        return torch.cat([self.nothing.expand(rows - captions, positions, -1), found])


def _by_head(states: torch.Tensor, heads: int) -> torch.Tensor:
    return states.unflatten(-1, (heads, -1)).transpose(1, 2)


@contextmanager
def captions_read_once(
    sana: SanaTransformer2DModel, condition: torch.Tensor, nothing: torch.Tensor | None
) -> Iterator[Callable[[torch.Tensor, torch.Tensor], torch.Tensor]]:
    """Within it, `sana` attends to `condition` without reading it again; afterwards it has its own processors back.

    Args:
        sana: the head, in evaluation mode.
        condition: `[B, T, C]` from the connector.
        nothing: `[1, 1, C]`, the unconditional branch's one vector; None without guidance.

    Yields:
        The head's velocity `[U + B, C, h, w]`, float32, of latents `[U + B, C, h, w]` at one time step; the last B rows
        are conditional, the U before them are not.
    """
    caption = sana.caption_norm(sana.caption_projection(condition))
    empty = None if nothing is None else sana.caption_norm(sana.caption_projection(nothing))
    own = [block.attn2.processor for block in sana.transformer_blocks]

    def velocity(latents: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        return sana(
            hidden_states=latents.to(sana.dtype),
            timestep=timestep.expand(len(latents)),
            encoder_hidden_states=condition[:1, :1].expand(len(latents), 1, -1),  # for its shape; nobody looks at it
        ).sample.float()

    try:
        for block in sana.transformer_blocks:
            block.attn2.processor = FixedCaption(block.attn2, caption, empty)
        yield velocity
    finally:
        for block, processor in zip(sana.transformer_blocks, own, strict=True):
            block.attn2.processor = processor


def distinct_rows(noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """`(first, which)`: rows `[U]` of `noise` that differ from each other, and which of them each row `[B]` is."""
    _, which = torch.unique(noise.flatten(1), dim=0, return_inverse=True)
    first = torch.full((int(which.max()) + 1,), len(which), device=noise.device)
    return first.scatter_reduce(0, which, torch.arange(len(which), device=noise.device), "amin"), which
