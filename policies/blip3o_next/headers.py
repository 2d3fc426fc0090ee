"""What a checkpoint's configs and file headers tell without torch: asked first, so that a wrong folder is told at once.

The AR part's shapes follow from `config.json` and are compared here; those of the diffusion head and the vision tower
are known to their libraries only, so `BLIP3oNext.check` compares all of them afterwards.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from blip3o_grpo.policies.blip3o_next.checkpoint import Weights, shape_problems
from blip3o_grpo.policies.blip3o_next.config import read_config, resolve_policy_path
from blip3o_grpo.policies.blip3o_next.hub import diffusion_folder, read_diffusion_configs
from blip3o_grpo.policies.blip3o_next.json_files import CheckpointError
from blip3o_grpo.policies.blip3o_next.tied import EMBEDDING, HEAD, TIE, shared_twice

QWEN3_SIZES = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "intermediate_size",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
)


def check_headers(path: str | Path) -> Path:
    """Check a checkpoint's configs and the headers of its weights; returns its folder.

    Raises:
        CheckpointError: a file that is missing or damaged, or tensors of the AR part that do not fit `config.json`.
    """
    folder = resolve_policy_path(path)
    values = read_config(folder)
    weights = Weights(folder)
    read_diffusion_configs(diffusion_folder(folder, values["diffusion_name_or_path"]))
    found = weights.part_shapes("ar")
    expected = ar_shapes(values)
    tied = values.get(TIE)
    if expected and (problems := shape_problems(expected, shared_twice(found) if tied else found)):
        if not tied and HEAD in expected.keys() - found.keys():
            problems += f" (a head that is the embedding itself needs {TIE}: true in config.json)"
        raise CheckpointError(f"{folder}: the ar weights do not fit config.json; {problems}")
    return folder


def has_tokenizer(folder: Path) -> bool:
    """Whether a checkpoint can make tokens of pictures: it holds VQ-SigLIP2, or its `mm_vision_tower` names a file that
    is there (`ta_tok.py`)."""
    name = read_config(folder).get("mm_vision_tower")
    named = isinstance(name, str) and bool(name) and (folder / name).is_file()
    return named or bool(Weights(folder).names("vision"))


def image_side(folder: Path) -> int:
    """Side of the square pictures in px, of a checkpoint whose headers were checked."""
    configs = read_diffusion_configs(diffusion_folder(folder, read_config(folder)["diffusion_name_or_path"]))
    latent = configs["transformer/config.json"].get("sample_size", 32)
    stages = configs["vae/config.json"].get("encoder_block_out_channels", [0] * 6)  # each but the last halves
    return latent * 2 ** (len(stages) - 1)


def ar_shapes(values: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Qwen3's tensors by name, of a `config.json` that names all its sizes; empty for one that leaves sizes open."""
    if any(type(values.get(key)) is not int for key in QWEN3_SIZES):
        return {}
    vocabulary, width, layers, inner, heads, kv_heads, head = (values[key] for key in QWEN3_SIZES)
    projections = {
        "self_attn.q_proj": (heads * head, width),
        "self_attn.k_proj": (kv_heads * head, width),
        "self_attn.v_proj": (kv_heads * head, width),
        "self_attn.o_proj": (width, heads * head),
        "mlp.gate_proj": (inner, width),
        "mlp.up_proj": (inner, width),
        "mlp.down_proj": (width, inner),
    }
    layer: dict[str, tuple[int, ...]] = {f"{name}.weight": shape for name, shape in projections.items()}
    layer |= {"self_attn.q_norm.weight": (head,), "self_attn.k_norm.weight": (head,)}
    layer |= {"input_layernorm.weight": (width,), "post_attention_layernorm.weight": (width,)}
    if values.get("attention_bias"):
        layer |= {f"{name}.bias": shape[:1] for name, shape in projections.items() if name.startswith("self_attn")}
    shapes = {EMBEDDING: (vocabulary, width), "model.norm.weight": (width,), HEAD: (vocabulary, width)}
    return shapes | {f"model.layers.{n}.{name}": shape for n in range(layers) for name, shape in layer.items()}
