"""Positions of tokens in left-padded rows."""

import torch


def position_ids(mask: torch.Tensor) -> torch.Tensor:
    """Positions `[B, L]` that count real tokens only, so left padding changes nothing."""
    return (mask.long().cumsum(1) - 1).clamp(min=0)
