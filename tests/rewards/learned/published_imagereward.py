"""ImageReward's network written out from its publication, under the published names, for tests to compare with.

A pre-norm ViT with a joint query-key-value layer, and a post-norm BERT whose layers attend to the image between
self-attention and feed-forward; heads are 64 wide, norms of the image encoder have an epsilon of 1e-6, BERT's of 1e-12.
"""

from __future__ import annotations

import torch
from torch.nn.functional import conv2d, gelu, layer_norm, linear

HEAD = 64
WIDTH, TEXT_WIDTH, PATCH, SIDE, TOKENS = 192, 128, 8, 32, 64


def make_weights(seed: int = 0, layers: int = 2) -> dict[str, torch.Tensor]:
    """Random weights of a reduced size, with those that the authors' file holds but scoring does not use."""
    draw = torch.Generator().manual_seed(seed)
    found: dict[str, torch.Tensor] = {}

    def put(name: str, *shape: int, scale: float | None = None) -> None:
        found[name] = torch.randn(*shape, generator=draw) * (shape[-1] ** -0.5 if scale is None else scale)

    def dense(name: str, read: int, given: int) -> None:
        put(f"{name}.weight", given, read)
        put(f"{name}.bias", given, scale=0.1)

    def norm(name: str, width: int) -> None:
        found[f"{name}.weight"] = 1 + 0.1 * torch.randn(width, generator=draw)
        put(f"{name}.bias", width, scale=0.1)

    image, text = "blip.visual_encoder", "blip.text_encoder"
    # So small that the epsilon of the first norm shows in the scores.
    put(f"{image}.cls_token", 1, 1, WIDTH, scale=0.002)
    put(f"{image}.pos_embed", 1, (SIDE // PATCH) ** 2 + 1, WIDTH, scale=0.002)
    put(f"{image}.patch_embed.proj.weight", WIDTH, 3, PATCH, PATCH, scale=0.0002)
    put(f"{image}.patch_embed.proj.bias", WIDTH, scale=0.002)
    norm(f"{image}.norm", WIDTH)
    put(f"{text}.embeddings.word_embeddings.weight", TOKENS, TEXT_WIDTH, scale=1)
    put(f"{text}.embeddings.position_embeddings.weight", 40, TEXT_WIDTH, scale=1)
    found[f"{text}.embeddings.position_ids"] = torch.arange(40)[None]
    norm(f"{text}.embeddings.LayerNorm", TEXT_WIDTH)
    for layer in range(layers):
        block, bert = f"{image}.blocks.{layer}", f"{text}.encoder.layer.{layer}"
        norm(f"{block}.norm1", WIDTH)
        norm(f"{block}.norm2", WIDTH)
        dense(f"{block}.attn.qkv", WIDTH, 3 * WIDTH)
        dense(f"{block}.attn.proj", WIDTH, WIDTH)
        dense(f"{block}.mlp.fc1", WIDTH, 2 * WIDTH)
        dense(f"{block}.mlp.fc2", 2 * WIDTH, WIDTH)
        for part, read in (("attention", TEXT_WIDTH), ("crossattention", WIDTH)):
            dense(f"{bert}.{part}.self.query", TEXT_WIDTH, TEXT_WIDTH)
            dense(f"{bert}.{part}.self.key", read, TEXT_WIDTH)
            dense(f"{bert}.{part}.self.value", read, TEXT_WIDTH)
            dense(f"{bert}.{part}.output.dense", TEXT_WIDTH, TEXT_WIDTH)
            norm(f"{bert}.{part}.output.LayerNorm", TEXT_WIDTH)
        dense(f"{bert}.intermediate.dense", TEXT_WIDTH, 2 * TEXT_WIDTH)
        dense(f"{bert}.output.dense", 2 * TEXT_WIDTH, TEXT_WIDTH)
        norm(f"{bert}.output.LayerNorm", TEXT_WIDTH)
    dense("blip.vision_proj", WIDTH, 16)
    dense("blip.text_proj", TEXT_WIDTH, 16)
    widths = (TEXT_WIDTH, 48, 24, 16, 8, 1)
    for layer, (read, given) in zip((0, 2, 4, 6, 7), zip(widths, widths[1:], strict=False), strict=True):
        dense(f"mlp.layers.{layer}", read, given)
    return found


def published_score(weights: dict[str, torch.Tensor], pixels: torch.Tensor, tokens: list[int]) -> float:
    """The score of one image `[3, SIDE, SIDE]` and the tokens of its prompt, without padding."""

    def dense(name: str, value: torch.Tensor) -> torch.Tensor:
        return linear(value, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def norm(name: str, value: torch.Tensor, eps: float) -> torch.Tensor:
        return layer_norm(value, value.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], eps)

    def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        heads = []
        for start in range(0, query.shape[-1], HEAD):
            q, k, v = (part[:, start : start + HEAD] for part in (query, key, value))
            heads.append((q @ k.T / HEAD**0.5).softmax(dim=-1) @ v)
        return torch.cat(heads, dim=-1)

    image, text = "blip.visual_encoder", "blip.text_encoder"
    patches = conv2d(
        pixels[None], weights[f"{image}.patch_embed.proj.weight"], weights[f"{image}.patch_embed.proj.bias"], PATCH
    )
    seen = torch.cat([weights[f"{image}.cls_token"][0], patches[0].flatten(1).T]) + weights[f"{image}.pos_embed"][0]
    layers = len({name.split(".")[3] for name in weights if name.startswith(f"{image}.blocks.")})
    for layer in range(layers):
        block = f"{image}.blocks.{layer}"
        query, key, value = dense(f"{block}.attn.qkv", norm(f"{block}.norm1", seen, 1e-6)).chunk(3, dim=-1)
        seen = seen + dense(f"{block}.attn.proj", attend(query, key, value))
        inner = gelu(dense(f"{block}.mlp.fc1", norm(f"{block}.norm2", seen, 1e-6)))
        seen = seen + dense(f"{block}.mlp.fc2", inner)
    seen = norm(f"{image}.norm", seen, 1e-6)

    embeddings = f"{text}.embeddings"
    read = weights[f"{embeddings}.word_embeddings.weight"][tokens]
    read = norm(
        f"{embeddings}.LayerNorm", read + weights[f"{embeddings}.position_embeddings.weight"][: len(tokens)], 1e-12
    )
    for layer in range(layers):
        bert = f"{text}.encoder.layer.{layer}"
        for part in ("attention", "crossattention"):
            source = read if part == "attention" else seen
            given = attend(
                dense(f"{bert}.{part}.self.query", read),
                dense(f"{bert}.{part}.self.key", source),
                dense(f"{bert}.{part}.self.value", source),
            )
            read = norm(f"{bert}.{part}.output.LayerNorm", read + dense(f"{bert}.{part}.output.dense", given), 1e-12)
        inner = gelu(dense(f"{bert}.intermediate.dense", read))
        read = norm(f"{bert}.output.LayerNorm", read + dense(f"{bert}.output.dense", inner), 1e-12)
    value = read[0]
    for layer in (0, 2, 4, 6, 7):
        value = dense(f"mlp.layers.{layer}", value)
    return ((value - 0.16717362830052426) / 1.0333394966054072).item()
