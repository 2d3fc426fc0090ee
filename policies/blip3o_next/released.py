"""Sizes of the released model, and the same model at any smaller scale.

Written down from its parts: Qwen3-1.7B with 65,541 added tokens, SANA1.5 1.6B at 1024 px, DC-AE f32c32 (sana-1.1) and
TA-Tok on SigLIP2 so400m patch14 384. A scale below 1 shrinks widths, depths, vocabulary and picture together; head
sizes, latent channels and the factor 32 between latents and pixels stay. For tests and measurements with random
weights: `scripts/make_full_size.py` writes such a checkpoint.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from blip3o_grpo.policies.blip3o_next.config import RELEASED_GRID
from blip3o_grpo.policies.blip3o_next.vision import RELEASED_TOWER

NUM_TEXT_TOKENS = 151_669  # Qwen3's tokenizer, chat tokens included
NUM_IMAGE_TOKENS = 65_536
NUM_SCALE_TOKENS = 3
DIFFUSION_NAME = "Efficient-Large-Model/SANA1.5_1.6B_1024px_diffusers"
BLOCK_CHANNELS = (128, 256, 512, 512, 1024, 1024)


def _scaled(size: int, scale: float, multiple: int = 1, least: int = 1) -> int:
    return max(least, round(size * scale / multiple)) * multiple


def num_text_tokens(scale: float) -> int:
    """Text tokens, chat tokens included."""
    return max(1100, _scaled(NUM_TEXT_TOKENS, scale))


def num_image_tokens(scale: float) -> int:
    """Image tokens, the size of the codebook."""
    return _scaled(NUM_IMAGE_TOKENS, scale, multiple=16, least=4)


def qwen_sizes(scale: float) -> dict[str, Any]:
    """Keys of `config.json` that are Qwen3's, in the spelling of the released file."""
    heads, head_dim = _scaled(16, scale, multiple=2), 128 if scale >= 0.25 else 32
    return {
        "attention_bias": False,
        "attention_dropout": 0.0,
        "head_dim": head_dim,
        "hidden_act": "silu",
        "hidden_size": heads * head_dim,
        "initializer_range": 0.02,
        "intermediate_size": 3 * heads * head_dim,
        "max_position_embeddings": 40_960 if scale == 1 else 1024,
        "max_window_layers": 28,
        "num_attention_heads": heads,
        "num_hidden_layers": _scaled(28, scale, least=2),
        "num_key_value_heads": heads // 2,
        "rms_norm_eps": 1e-6,
        "rope_scaling": None,
        "rope_theta": 1_000_000,
        "sliding_window": None,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.51.3",
        "use_cache": True,
        "use_sliding_window": False,
    }


def config_values(scale: float) -> dict[str, Any]:
    """All of `config.json`; below the real size with the vision tower's sizes, which the released file leaves out.

    Token ids: text, the last three of them Qwen's chat tokens; then tags, scale tokens and image tokens.
    """
    text, scales, image = num_text_tokens(scale), NUM_SCALE_TOKENS, num_image_tokens(scale)
    vision = vision_sizes(scale)
    values = {
        **qwen_sizes(scale),
        "architectures": ["blip3oQwenForCausalLM"],
        "bos_token_id": text - 3,
        "diffusion_name_or_path": DIFFUSION_NAME,
        "eos_token_id": text - 1,
        "image_end_tag_id": text + 1,
        "image_end_token_id": text + 2 + scales + image - 1,
        "image_start_tag_id": text,
        "image_start_token_id": text + 2 + scales,
        "mm_hidden_size": vision["hidden_size"],
        "mm_vision_tower": "ta_tok.pth",
        "model_type": "blip3o_qwen",
        "num_image_tokens": image,
        "num_scale_tokens": scales,
        "scale_end_token_id": text + 2 + scales - 1,
        "scale_start_token_id": text + 2,
        "vocab_size": text + 2 + scales + image,
    }
    return values if scale == 1 else values | {"vision_tower_config": vision}


def vision_sizes(scale: float) -> dict[str, Any]:
    """`blip3o_grpo.policies.blip3o_next.vision.RELEASED_TOWER` at a scale."""
    if scale == 1:
        return RELEASED_TOWER
    heads = _scaled(16, scale)
    return {
        **RELEASED_TOWER,
        "image_size": 14 * max(4, round(RELEASED_GRID * scale)),
        "hidden_size": 72 * heads,
        "num_attention_heads": heads,
        "intermediate_size": _scaled(4304, scale, multiple=8),
        "num_hidden_layers": _scaled(27, scale, least=2),
        "bottleneck_dim": _scaled(1536, scale, multiple=8),
        "decoder_layers": _scaled(3, scale),
        "decoder_intermediate_size": _scaled(3072, scale, multiple=8),
        "decoder_attention_heads": heads,
    }


def diffusion_configs(scale: float) -> dict[str, dict[str, Any]]:
    """The three config files of the diffusion head, by their path in a diffusers folder."""
    width = _scaled(10, scale)  # SANA's inner width in units of 224: 7 heads of 32, 2 cross-attention heads of 112
    # 32 times a power of two, as at the real size: DC-AE's shortcuts repeat channels a whole number of times
    channels = [32 * 2 ** max(0, round(math.log2(size * scale / 32))) for size in BLOCK_CHANNELS]
    return {
        "transformer/config.json": {
            "_class_name": "SanaTransformer2DModel",
            "attention_bias": False,
            "attention_head_dim": 32,
            "caption_channels": _scaled(2304, scale, multiple=8),
            "cross_attention_dim": 224 * width,
            "cross_attention_head_dim": 112,
            "dropout": 0.0,
            "in_channels": 32,
            "interpolation_scale": None,
            "mlp_ratio": 2.5,
            "norm_elementwise_affine": False,
            "norm_eps": 1e-6,
            "num_attention_heads": 7 * width,
            "num_cross_attention_heads": 2 * width,
            "num_layers": _scaled(20, scale),
            "out_channels": 32,
            "patch_size": 1,
            "qk_norm": "rms_norm_across_heads",
            "sample_size": _scaled(32, scale, least=2),
        },
        "vae/config.json": {
            "_class_name": "AutoencoderDC",
            "attention_head_dim": 32,
            "decoder_act_fns": "silu",
            "decoder_block_out_channels": channels,
            "decoder_block_types": ["ResBlock"] * 3 + ["EfficientViTBlock"] * 3,
            "decoder_layers_per_block": [_scaled(3, scale)] * 6,
            "decoder_norm_types": "rms_norm",
            "decoder_qkv_multiscales": [[], [], [], [5], [5], [5]],
            "downsample_block_type": "Conv",
            "encoder_block_out_channels": channels,
            "encoder_block_types": ["ResBlock"] * 3 + ["EfficientViTBlock"] * 3,
            "encoder_layers_per_block": [_scaled(size, scale) for size in (2, 2, 2, 3, 3, 3)],
            "encoder_qkv_multiscales": [[], [], [], [5], [5], [5]],
            "in_channels": 3,
            "latent_channels": 32,
            "scaling_factor": 0.41407,
            "upsample_block_type": "interpolate",
        },
        "scheduler/scheduler_config.json": {
            "_class_name": "FlowMatchEulerDiscreteScheduler",
            "num_train_timesteps": 1000,
            "shift": 3.0,
        },
    }


def write_configs(folder: Path, scale: float) -> None:
    """Configs of a checkpoint folder, without weights and tokenizer."""
    from blip3o_grpo.policies.blip3o_next.policy import write_json

    write_json(folder / "config.json", config_values(scale))
    for name, values in diffusion_configs(scale).items():
        write_json(folder / DIFFUSION_NAME / name, values)
