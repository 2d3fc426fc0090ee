"""Lumina Next-DiT as the head of a flow over image features: diffusers' model, called as SANA is.

What diffusers asks of a caller is the same at every call here: no padding among the condition's vectors, and rotary
positions of a square.
"""

from __future__ import annotations

import torch
from diffusers import LuminaNextDiT2DModel
from diffusers.models.embeddings import get_2d_rotary_pos_embed_lumina
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from torch import nn


class FeatureDiT(LuminaNextDiT2DModel):
    """Velocity of features; `config.in_channels` of them at each of `config.sample_size` squared places."""

    def forward(
        self, hidden_states: torch.Tensor, timestep: torch.Tensor, encoder_hidden_states: torch.Tensor
    ) -> Transformer2DModelOutput:
        """Velocity `[B, C, h, w]` under `sample`.

        Args:
            hidden_states: features `[B, C, h, w]` with noise.
            timestep: `[B]`, of the scheduler: 0 (no noise) to 1000 (noise alone).
            encoder_hidden_states: condition `[B, T, D]`.
        """
        side, width = self.config.sample_size, self.config.hidden_size // self.config.num_attention_heads
        seen = torch.ones(encoder_hidden_states.shape[:2], device=hidden_states.device)
        return super().forward(
            hidden_states,
            timestep,
            encoder_hidden_states,
            encoder_mask=seen,
            image_rotary_emb=get_2d_rotary_pos_embed_lumina(width, side, side),
            cross_attention_kwargs={},
        )


@torch.no_grad()
def start_neutral(dit: FeatureDiT) -> None:
    """Start as Lumina does: blocks pass on what they get, and the velocity is 0; diffusers leaves this to checkpoints.

    `pad_token`, which nothing uses, is memory that nobody has written to; it becomes 0 so that equal models are equal.
    """
    dit.pad_token.zero_()
    for linear in (*(block.norm1.linear for block in dit.layers), dit.norm_out.linear_2):
        nn.init.zeros_(linear.weight)
        nn.init.zeros_(linear.bias)
