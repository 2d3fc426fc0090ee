"""ImageReward's BLIP in transformers: the published names of its weights, and the network whose sizes they tell.

BLIP: Li et al. 2022, https://arxiv.org/abs/2201.12086. transformers' own defaults differ from the published network in
two places that no weight shows: epsilon of the image encoder's norms (1e-6, not 1e-5), and the text encoder's heads
(12, 64 wide, not 8).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from blip3o_grpo.rewards.types import RewardError

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import BlipTextModel, BlipVisionModel

HEAD_WIDTH = 64
"""Of every attention head in BLIP's encoders, whatever their size."""
_VISION = (
    (r"^cls_token$", "embeddings.class_embedding"),
    (r"^pos_embed$", "embeddings.position_embedding"),
    (r"^patch_embed\.proj\.", "embeddings.patch_embedding."),
    (r"^norm\.", "post_layernorm."),
    (r"^blocks\.(\d+)\.attn\.qkv\.", r"encoder.layers.\1.self_attn.qkv."),
    (r"^blocks\.(\d+)\.attn\.proj\.", r"encoder.layers.\1.self_attn.projection."),
    (r"^blocks\.(\d+)\.norm([12])\.", r"encoder.layers.\1.layer_norm\2."),
    (r"^blocks\.(\d+)\.mlp\.", r"encoder.layers.\1.mlp."),
)
"""Published names of the image encoder, timm's, to those of `BlipVisionModel`; the text encoder's need no change."""
_UNUSED = re.compile(r"(vision_proj|text_proj)\.(weight|bias)|text_encoder\.embeddings\.position_ids")
"""Of BLIP's contrastive loss, which ImageReward leaves out, and a buffer that is computed."""


def load_blip(weights: Mapping[str, Tensor], place: str) -> tuple[BlipVisionModel, BlipTextModel]:
    """Both encoders in float32 on the CPU, for scoring.

    Args:
        weights: `visual_encoder.*` and `text_encoder.*`, as BLIP publishes them.
        place: reward and option, for messages.

    Raises:
        RewardError: naming a weight that is missing, extra or of another shape.
    """
    from transformers import BlipTextModel, BlipVisionModel

    parts: dict[str, dict[str, Tensor]] = {"visual_encoder": {}, "text_encoder": {}}
    for name, value in weights.items():
        if _UNUSED.fullmatch(name):
            continue
        part, _, inner = name.partition(".")
        if part not in parts:
            raise RewardError(f"{place}: weight {name!r} belongs to no BLIP encoder")
        parts[part][_renamed(inner) if part == "visual_encoder" else inner] = value
    try:
        vision_config, text_config = vision_sizes(parts["visual_encoder"]), text_sizes(parts["text_encoder"])
    except KeyError as error:
        raise RewardError(f"{place}: weight {error} is missing, so this is no ImageReward") from error
    vision = BlipVisionModel(vision_config)
    text = BlipTextModel(text_config, add_pooling_layer=False)
    for model, part in ((vision, "visual_encoder"), (text, "text_encoder")):
        try:
            model.load_state_dict({name: value.float() for name, value in parts[part].items()})
        except RuntimeError as error:
            raise RewardError(f"{place}: {part} does not fit: {' '.join(str(error).split())[:200]}") from error
    return vision.eval(), text.eval()


def vision_sizes(weights: Mapping[str, Tensor]):
    """`BlipVisionConfig` of weights under transformers' names; raises KeyError for one that is missing."""
    from transformers import BlipVisionConfig

    width = weights["embeddings.class_embedding"].shape[-1]
    patch = weights["embeddings.patch_embedding.weight"].shape[-1]
    patches_a_side = math.isqrt(weights["embeddings.position_embedding"].shape[1] - 1)
    return BlipVisionConfig(
        hidden_size=width,
        intermediate_size=weights["encoder.layers.0.mlp.fc1.weight"].shape[0],
        num_hidden_layers=_num_layers(weights, r"encoder\.layers\.(\d+)\."),
        num_attention_heads=max(1, width // HEAD_WIDTH),
        image_size=patches_a_side * patch,
        patch_size=patch,
        layer_norm_eps=1e-6,
    )


def text_sizes(weights: Mapping[str, Tensor]):
    """`BlipTextConfig` of weights under transformers' names; raises KeyError for one that is missing."""
    from transformers import BlipTextConfig

    vocabulary, width = weights["embeddings.word_embeddings.weight"].shape
    return BlipTextConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        encoder_hidden_size=weights["encoder.layer.0.crossattention.self.key.weight"].shape[1],
        intermediate_size=weights["encoder.layer.0.intermediate.dense.weight"].shape[0],
        num_hidden_layers=_num_layers(weights, r"encoder\.layer\.(\d+)\."),
        num_attention_heads=max(1, width // HEAD_WIDTH),
        max_position_embeddings=weights["embeddings.position_embeddings.weight"].shape[0],
    )


def _renamed(name: str) -> str:
    for pattern, replacement in _VISION:
        name, count = re.subn(pattern, replacement, name)
        if count:
            break
    return name


def _num_layers(weights: Mapping[str, Tensor], pattern: str) -> int:
    return len({found[1] for name in weights if (found := re.match(pattern, name))})
