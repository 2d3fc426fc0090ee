"""Broken checkpoints: found before a tensor is read."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

import torch

from blip3o_grpo.policies import BLIP3oNext
from blip3o_grpo.policies.blip3o_next.ta_tok import load_ta_tok
from tests.robustness.case import Case, World, edit_json, edit_tensors, replace

HEAD = "lm_head.weight"
INDEX = "model.safetensors.index.json"


def _config(**changes):
    return lambda folder: edit_json(folder / "config.json", **changes)


def _file(name: str, content: bytes | str):
    return lambda folder: replace(folder / name, content)


def _gone(name: str):
    return lambda folder: (folder / name).unlink()


def _cut(folder: Path) -> None:
    replace(folder / "model.safetensors", (folder / "model.safetensors").read_bytes()[:-1000])


def _header(text: bytes):
    return _file("model.safetensors", struct.pack("<Q", len(text)) + text)


def _tensors(edit: Callable[[dict], object]):
    return lambda folder: edit_tensors(folder, edit)


def _index(weight_map: object):
    def spoil(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        replace(folder / INDEX, weight_map if isinstance(weight_map, str) else json.dumps({"weight_map": weight_map}))

    return spoil


def _diffusion(part: str, **changes):
    return lambda folder: edit_json(folder / "diffusion" / part / "config.json", **changes)


def _token_gone(folder: Path) -> None:
    text = (folder / "tokenizer.json").read_text(encoding="utf-8")
    replace(folder / "tokenizer.json", text.replace("<I5>", "<X5>"))


def _tokens_moved(folder: Path) -> None:
    text = (folder / "tokenizer.json").read_text(encoding="utf-8")
    swapped = text.replace("<I5>", "<swap>").replace("<I6>", "<I5>").replace("<swap>", "<I6>")
    replace(folder / "tokenizer.json", swapped)


def _overlap(folder: Path) -> None:
    start = json.loads((folder / "config.json").read_text())["image_start_token_id"]
    edit_json(folder / "config.json", image_start_tag_id=start + 5)


BROKEN = [
    ("no config", _gone("config.json"), "config.json is missing"),
    ("config no JSON", _file("config.json", "{"), "config.json: not valid JSON"),
    ("config a list", _file("config.json", "[]"), "expected an object"),
    ("config Latin-1", _file("config.json", '{"a": "\xe9"}'.encode("latin-1")), "config.json: not valid JSON"),
    ("config very deep", _file("config.json", "[" * 100_000), "config.json: not valid JSON"),
    ("another model", _config(model_type="llama"), "model_type is 'llama'"),
    ("no model type", _config(model_type=...), "model_type is None"),
    ("no number of tokens", _config(num_image_tokens=...), "missing key 'num_image_tokens'"),
    ("no hidden size", _config(hidden_size=...), "missing key 'hidden_size'"),
    ("no diffusion path", _config(diffusion_name_or_path=...), "missing key 'diffusion_name_or_path'"),
    ("diffusion path a number", _config(diffusion_name_or_path=5), "diffusion_name_or_path is 5"),
    ("diffusion path missing", _config(diffusion_name_or_path="nothing/here"), "diffusion_name_or_path='nothing/here'"),
    ("diffusion path no name", _config(diffusion_name_or_path="../../x y"), "diffusion_name_or_path='../../x y'"),
    ("vocabulary in words", _config(vocab_size="many"), "vocab_size is 'many'"),
    ("vocabulary too small", _config(vocab_size=10), "outside the vocabulary of 10"),
    ("vocabulary beyond reason", _config(vocab_size=10**12), "vocab_size is 1000000000000, more than"),
    ("layers beyond reason", _config(num_hidden_layers=10**9), "num_hidden_layers is 1000000000, more than"),
    ("layers negative", _config(num_hidden_layers=-1), "num_hidden_layers is -1"),
    ("layers true", _config(num_hidden_layers=True), "num_hidden_layers is True"),
    ("ranges overlap", _overlap, "overlap"),
    ("range and number disagree", _config(num_image_tokens=5), "but num_image_tokens=5"),
    ("heads 0", _config(num_attention_heads=0), "config"),
    ("heads in words", _config(num_attention_heads="four"), "not a Qwen3 configuration"),
    ("activation unknown", _config(hidden_act="step"), "no model can be built"),
    ("context too short", _config(max_position_embeddings=10), "leaves no room for a prompt"),
    ("width changed", _config(hidden_size=128), "wrong shape"),
    ("tower of nothing", _config(vision_tower_config={}), "vision_tower_config must hold"),
    ("tower without patches", _config(vision_tower_config={"image_size": 56, "patch_size": 0}), "vision_tower_config"),
    ("no weights", _gone("model.safetensors"), "neither model.safetensors nor"),
    ("weights cut off", _cut, "not a complete safetensors file"),
    ("weights empty", _file("model.safetensors", b""), "not a complete safetensors file"),
    ("weights text", _file("model.safetensors", "version https://git-lfs.github.com/spec/v1\n"), "not a complete"),
    ("weights a pickle", _file("model.safetensors", b"\x80\x04pickle" * 9), "not a complete safetensors file"),
    ("header no JSON", _header(b"{nonsense"), "not a complete safetensors file"),
    ("header beyond reason", _file("model.safetensors", struct.pack("<Q", 2**62)), "not a complete safetensors file"),
    ("header points outside", _header(b'{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,36]}}'), "not a complete"),
    ("a tensor missing", _tensors(lambda t: t.pop("model.norm.weight")), "missing: model.norm.weight"),
    ("a tensor too many", _tensors(lambda t: t.update(more=torch.zeros(1))), "unexpected: more"),
    ("a tensor misshapen", _tensors(lambda t: t.update({HEAD: torch.zeros(3, 4)})), f"wrong shape: {HEAD} (3, 4)"),
    ("a tensor of integers", _tensors(lambda t: t.update({HEAD: t[HEAD].int()})), f"instead of floats: {HEAD}"),
    ("a tensor of truths", _tensors(lambda t: t.update({HEAD: t[HEAD].bool()})), f"instead of floats: {HEAD}"),
    ("index no JSON", _index("{"), "not an index of shards"),
    ("index a list", _index("[]"), "not an index of shards"),
    ("index of numbers", _index({"a": 5}), "not an index of shards"),
    ("index of a missing file", _index({"a": "model-1.safetensors"}), "names model-1.safetensors, which is missing"),
    ("index that leads out", _index({"a": "../other/model.safetensors"}), "which is not a file of this folder"),
    ("index of an absolute file", _index({"a": "/etc/passwd"}), "which is not a file of this folder"),
    ("index of the folder above", _index({"a": ".."}), ".."),
    ("index of nothing", _index({}), "missing"),
    ("no tokenizer", _gone("tokenizer.json"), "tokenizer.json is missing"),
    ("tokenizer no JSON", _file("tokenizer.json", "{"), "tokenizer cannot be read"),
    ("tokenizer empty", _file("tokenizer.json", "{}"), "tokenizer cannot be read"),
    ("tokenizer without an image token", _token_gone, "lacks 1 of the model's image tokens, <I5>"),
    ("tokenizer with moved tokens", _tokens_moved, "<I5> has id"),
    ("template broken", _file("chat_template.jinja", "{% for %}"), "chat template"),
    ("template without the prompt", _file("chat_template.jinja", "hello"), "leaves the prompt out"),
    ("template that looks around", _file("chat_template.jinja", "{{ ''.__class__.__mro__ }}"), "chat template"),
    ("SANA no JSON", _file("diffusion/transformer/config.json", "{"), "transformer/config.json: not valid JSON"),
    ("SANA missing", _gone("diffusion/transformer/config.json"), "transformer/config.json is missing"),
    ("SANA of another width", _diffusion("transformer", num_attention_heads=3), "wrong shape"),
    ("SANA layers beyond reason", _diffusion("transformer", num_layers=10**9), "num_layers is 1000000000, more than"),
    ("SANA heads in words", _diffusion("transformer", num_attention_heads="two"), "no model can be built"),
    ("DC-AE a list", _file("diffusion/vae/config.json", "[]"), "expected an object"),
    ("DC-AE of unknown blocks", _diffusion("vae", decoder_block_types=["Nothing"] * 6), "no model can be built"),
]

TA_TOK = [
    ("missing", None, "no such file"),
    ("empty", b"", "not a complete TA-Tok file"),
    ("text", b"hello", "ta_tok.pth: "),
    ("a plain pickle", b"\x80\x04\x95\x05\x00\x00\x00\x00\x00\x00\x00]\x94.", "ta_tok.pth: "),
    ("a zip of nothing", b"PK\x05\x06" + bytes(18), "ta_tok.pth: "),
]


def _checkpoint(spoil: Callable[[Path], object]):
    def act(world: World) -> str:
        folder = world.checkpoint()
        spoil(folder)
        return world.call(BLIP3oNext.check, folder)

    return act


def _ta_tok(content: bytes | None):
    def act(world: World) -> str:
        path = world.folder / "ta_tok.pth"
        if content is not None:
            path.write_bytes(content)
        return world.call(load_ta_tok, path)

    return act


def _through_the_command_line(world: World) -> str:
    folder = world.checkpoint()
    _cut(folder)
    return world.train(policy={"path": str(folder)})


CASES = [
    *(Case("checkpoint", name, _checkpoint(spoil), (says,)) for name, spoil, says in BROKEN),
    *(Case("TA-Tok", name, _ta_tok(content), (says,)) for name, content, says in TA_TOK),
    Case("checkpoint", "cut off, in a run", _through_the_command_line, ("not a complete safetensors file",)),
]
