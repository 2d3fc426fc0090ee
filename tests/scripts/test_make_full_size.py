"""The random checkpoint: its real shapes on the meta device, and a small one written for real."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderDC, SanaTransformer2DModel
from safetensors.torch import load_file

from blip3o_grpo.policies.blip3o_next import released
from blip3o_grpo.policies.blip3o_next.checkpoint import PREFIXES, part_of
from blip3o_grpo.policies.blip3o_next.released import write_configs
from scripts.make_full_size import layout, make, shapes

DOCS = Path(__file__).parents[2] / "docs" / "checkpoint-keys.md"


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """Every tensor of the real size, on the meta device."""
    folder = tmp_path_factory.mktemp("real")
    write_configs(folder, 1.0)
    return shapes(folder, 1.0)


def test_the_real_shapes_are_those_of_the_released_model(real):
    vision, prefix = PREFIXES["vision"], PREFIXES["vision"] + "bottleneck."
    for name, shape in {
        "model.embed_tokens.weight": (217210, 2048),
        "lm_head.weight": (217210, 2048),
        "model.layers.27.self_attn.q_proj.weight": (2048, 2048),
        "model.layers.27.self_attn.k_proj.weight": (1024, 2048),
        "model.layers.0.mlp.down_proj.weight": (2048, 6144),
        "model.diffusion_connector.0.weight": (2304, 2048),
        "model.diffusion_connector.2.weight": (2304, 2304),
        "model.diffusion_connector.3.weight": (2304,),
        "model.sana.patch_embed.proj.weight": (2240, 32, 1, 1),
        "model.sana.transformer_blocks.19.attn2.to_q.weight": (2240, 2240),
        "model.sana.caption_projection.linear_1.weight": (2240, 2304),
        "model.sana_vae.encoder.conv_in.weight": (128, 3, 3, 3),
        "model.sana_vae.decoder.conv_in.weight": (1024, 32, 3, 3),
        f"{vision}encoder.embeddings.patch_embedding.weight": (1152, 3, 14, 14),
        f"{vision}encoder.embeddings.position_embedding.weight": (729, 1152),
        f"{vision}encoder.encoder.layers.26.mlp.fc1.weight": (4304, 1152),
        f"{vision}decoder.vision_model.encoder.layers.2.mlp.fc1.weight": (3072, 1152),
        f"{prefix}in_linear.weight": (1536, 1152),
        f"{prefix}regularizer.embedding.weight": (65536, 1536),
    }.items():
        assert tuple(real[name].shape) == shape, name
    assert "model.layers.28.self_attn.q_proj.weight" not in real
    assert all(tensor.is_meta and tensor.dtype == torch.bfloat16 for tensor in real.values())
    billions = {part: sum(t.numel() for n, t in real.items() if part_of(n) == part) / 1e9 for part in ("ar", "sana")}
    assert billions["ar"] == pytest.approx(1.41 + 2 * 217210 * 2048 / 1e9, abs=0.01)  # Qwen3-1.7B's layers
    assert billions["sana"] == pytest.approx(1.6, abs=0.05)


@pytest.mark.parametrize("scale", [0.02, 0.1, 0.2, 0.35, 0.7])
def test_the_head_fits_together_at_any_scale(scale):
    """Shapes alone, on the meta device: channels that do not divide fail inside DC-AE's shortcuts."""
    configs = released.diffusion_configs(scale)
    with torch.device("meta"):
        sana = SanaTransformer2DModel.from_config(configs["transformer/config.json"])
        vae = AutoencoderDC.from_config(configs["vae/config.json"])
        latents = torch.zeros(1, sana.config.in_channels, sana.config.sample_size, sana.config.sample_size)
        velocity = sana(latents, torch.zeros(1, 3, sana.config.caption_channels), torch.zeros(1)).sample
        pixels = vae.decode(velocity).sample
    assert velocity.shape == latents.shape
    assert pixels.shape == (1, 3, 32 * sana.config.sample_size, 32 * sana.config.sample_size)


def test_the_documented_table_is_the_code_s(real):
    assert layout(real) in DOCS.read_text(encoding="utf-8")


def test_shards_repeat_and_do_not_depend_on_their_size(tmp_path):
    first = make(tmp_path / "first", scale=0.02, seed=3, shard_gb=0.0005)
    second = make(tmp_path / "second", scale=0.02, seed=3)
    other = make(tmp_path / "other", scale=0.02, seed=4)
    index = json.loads((first / "model.safetensors.index.json").read_text())
    shards = {file.name: load_file(file) for file in first.glob("*.safetensors")}
    assert len(shards) > 2 and set(shards) == set(index["weight_map"].values())
    tensors = {name: tensor for shard in shards.values() for name, tensor in shard.items()}
    again, changed = load_file(second / "model.safetensors"), load_file(other / "model.safetensors")
    assert tensors.keys() == again.keys() == index["weight_map"].keys()
    assert all(torch.equal(tensors[name], again[name]) for name in tensors)
    assert not torch.equal(changed["lm_head.weight"], again["lm_head.weight"])
    assert index["metadata"]["total_size"] == sum(2 * tensor.numel() for tensor in tensors.values())
