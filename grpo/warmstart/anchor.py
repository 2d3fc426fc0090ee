"""The anchor loss of a warm start: each image token's hidden state tells where and which it is.

Next-token prediction alone lets a policy trained from scratch forget both, and the diffusion head cannot decode them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from blip3o_grpo.policies.blip3o_next.config import grid_size
from blip3o_grpo.policies.blip3o_next.policy import BLIP3oNext

PLACE_LOGIT = 10.0


@torch.no_grad()
def make_probe(policy: BLIP3oNext, ids: torch.Tensor, mask: torch.Tensor) -> nn.Linear:
    """Linear map from a hidden state to the logits of its row and column and to its token's embedding.

    Starts as a cautious (ridge) least-squares fit on one batch, so that a trained policy is not shaken by a probe that
    knows nothing.

    Args:
        ids: `[B, L + T]` prompts and image tokens, with their `mask`.
    """
    side = grid_size(policy.config)
    hidden = policy.hidden_states(ids, mask)[:, 1:]
    index = torch.arange(side * side, device=ids.device)
    places = torch.cat([F.one_hot(index // side, side), F.one_hot(index % side, side)], -1).to(hidden.dtype)
    tokens = standardised(policy.ar.model.embed_tokens(ids[:, -side * side :]))
    wanted = torch.cat([PLACE_LOGIT * places.expand(len(ids), -1, -1), tokens], -1).flatten(0, 1)
    rows = F.pad(hidden.flatten(0, 1), (0, 1), value=1.0)
    gram = rows.T @ rows + 0.1 * len(rows) * torch.eye(rows.shape[1], device=rows.device)
    solution = torch.linalg.solve(gram, rows.T @ wanted)  # [D + 1, 2 * side + D]
    probe = nn.Linear(hidden.shape[-1], wanted.shape[-1], device=ids.device)
    probe.weight.copy_(solution[:-1].T)
    probe.bias.copy_(solution[-1])
    return probe


def standardised(embeddings: torch.Tensor) -> torch.Tensor:
    """Embeddings `[B, T, D]` with mean 0 in every channel and variance 1 over all."""
    centred = embeddings - embeddings.mean((0, 1))
    return centred / centred.std()


def anchor_loss(
    probe: nn.Linear, hidden: torch.Tensor, embeddings: torch.Tensor
) -> tuple[torch.Tensor, dict[str, float]]:
    """How badly each image token's hidden state tells where and which it is.

    Args:
        probe: of `make_probe`.
        hidden: `[B, T, D]` hidden states of the image tokens, T = side * side, row by row.
        embeddings: `[B, T, D]` input embeddings of the same tokens; no gradient flows into them.

    Returns:
        Cross-entropy (nats, mean of row and column) plus twice the embedding's unexplained share of variance.
    """
    side = (probe.out_features - hidden.shape[-1]) // 2
    row, column, token = probe(hidden).split([side, side, hidden.shape[-1]], dim=-1)
    index = torch.arange(side * side, device=hidden.device).expand(len(hidden), -1).flatten()
    place = F.cross_entropy(row.flatten(0, 1), index // side) + F.cross_entropy(column.flatten(0, 1), index % side)
    unexplained = F.mse_loss(token, standardised(embeddings.detach()))
    return place / 2 + 2 * unexplained, {"place": place.item() / 2, "forgotten": unexplained.item()}
