"""The head of LAION's aesthetic predictor and of ImageReward: five linear layers and nothing between them.

Published as 768-1024-128-64-16-1 with dropout, which scoring leaves out:
https://github.com/christophschuhmann/improved-aesthetic-predictor, https://github.com/THUDM/ImageReward.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from blip3o_grpo.rewards.types import RewardError

if TYPE_CHECKING:
    from torch import Tensor, nn

LAYERS = ("layers.0", "layers.2", "layers.4", "layers.6", "layers.7")
"""Names in the published files; the numbers between them are dropout's."""


def score_head(weights: Mapping[str, Tensor], width: int, place: str) -> nn.Sequential:
    """The head `[N, width]` to `[N, 1]` in float32; the widths between are those of the weights.

    Args:
        weights: `layers.N.weight` and `layers.N.bias` of `LAYERS`.
        width: D of what it reads.
        place: reward and option, for messages.

    Raises:
        RewardError: weights of something else, or for embeddings of another width.
    """
    import torch
    from torch import nn

    wanted = {f"{layer}.{part}" for layer in LAYERS for part in ("weight", "bias")}
    if set(weights) != wanted:
        odd = sorted(set(weights) ^ wanted)[0]
        raise RewardError(f"{place}: no head of five linear layers: {odd} is {'missing' if odd in wanted else 'extra'}")
    head = nn.Sequential()
    for layer in LAYERS:
        weight, bias = weights[f"{layer}.weight"], weights[f"{layer}.bias"]
        if weight.ndim != 2 or weight.shape[1] != width or bias.shape != weight.shape[:1]:
            raise RewardError(
                f"{place}: {layer} has weights {list(weight.shape)} and biases {list(bias.shape)}; it must read {width}"
            )
        linear = nn.Linear(*weight.shape[::-1], device="meta")
        linear.load_state_dict({"weight": weight.to(torch.float32), "bias": bias.to(torch.float32)}, assign=True)
        head.append(linear)
        width = len(bias)
    if width != 1:
        raise RewardError(f"{place}: the head gives {width} numbers instead of one score")
    return head.eval()
