"""The released layout: names, round trip, and a clear message for every way a folder can be broken."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from policies import BLIP3oNext, CheckpointError, PromptEncoder, load_config, resolve_policy_path


@pytest.fixture
def broken(folder: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(folder, tmp_path / "broken"))


def edit_config(folder: Path, **changes: object) -> None:
    values = json.loads((folder / "config.json").read_text())
    for key, value in changes.items():
        values.pop(key, None)
        if value is not None:
            values[key] = value
    (folder / "config.json").write_text(json.dumps(values))


def edit_weights(folder: Path, edit) -> None:
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def test_the_shipped_policy_is_found_by_name():
    assert resolve_policy_path("tiny").name == "tiny"


def test_names_are_those_of_the_released_checkpoint(folder):
    names = set(load_file(folder / "model.safetensors"))
    for name in (
        "model.embed_tokens.weight",
        "model.layers.0.self_attn.q_norm.weight",
        "model.norm.weight",
        "lm_head.weight",
        "model.sana.patch_embed.proj.weight",
        "model.sana_vae.decoder.conv_in.weight",
        "model.diffusion_connector.0.weight",
        "model.diffusion_connector.2.bias",
        "model.diffusion_connector.3.weight",
        "model.vision_tower.vision_tower.encoder.embeddings.patch_embedding.weight",
        "model.vision_tower.vision_tower.encode_task_layer.0.weight",
        "model.vision_tower.vision_tower.decode_task_layer.2.bias",
        "model.vision_tower.vision_tower.bottleneck.in_linear.weight",
        "model.vision_tower.vision_tower.bottleneck.regularizer.embedding.weight",
        "model.vision_tower.vision_tower.bottleneck.regularizer.embedding_proj.weight",
    ):
        assert name in names, name


def test_saving_what_was_loaded_changes_no_tensor_and_no_config_key(policy, folder, tmp_path):
    policy.save_pretrained(tmp_path)
    before, after = load_file(folder / "model.safetensors"), load_file(tmp_path / "model.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert json.loads((folder / "config.json").read_text()) == json.loads((tmp_path / "config.json").read_text())
    BLIP3oNext.from_pretrained(tmp_path)


def test_vocabulary_is_in_the_released_order(folder):
    vocabulary = PromptEncoder.from_pretrained(folder).tokenizer.get_vocab()
    ids = [vocabulary[token] for token in ("<im_start>", "<im_end>", "<S0>", "<S1>", "<S2>", "<I0>", "<I1>")]
    assert ids == list(range(ids[0], ids[0] + 7))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_image_tokens": None}, "missing key 'num_image_tokens'"),
        ({"model_type": "llama"}, "model_type is 'llama', expected one of blip3o_qwen"),
        ({"num_image_tokens": 5}, "image_start_token_id=.* are 1536 ids, but num_image_tokens=5"),
        ({"vocab_size": 600}, "lies outside the vocabulary of 600"),
    ],
)
def test_a_bad_config_is_named_before_weights_are_read(broken, changes, message):
    edit_config(broken, **changes)
    (broken / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=message):
        load_config(broken)


def test_a_missing_folder_file_or_shard_is_named(broken, tmp_path):
    with pytest.raises(CheckpointError, match="no such folder"):
        BLIP3oNext.from_pretrained(tmp_path / "nowhere")
    (broken / "model.safetensors").rename(broken / "elsewhere")
    with pytest.raises(CheckpointError, match="neither model.safetensors nor"):
        BLIP3oNext.from_pretrained(broken)
    (broken / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"lm_head.weight": "shard-7"}}))
    with pytest.raises(CheckpointError, match="names shard-7, which is missing"):
        BLIP3oNext.from_pretrained(broken)


def test_a_truncated_file_is_named(broken):
    file = broken / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"model\.safetensors: not a complete safetensors file"):
        BLIP3oNext.from_pretrained(broken)


def test_missing_unexpected_and_misshapen_keys_are_listed(broken):
    def edit(tensors):
        tensors["lm_head.weight"] = tensors["lm_head.weight"][:7]
        tensors["model.extra"] = tensors.pop("model.norm.weight")

    edit_weights(broken, edit)
    with pytest.raises(CheckpointError) as error:
        BLIP3oNext.from_pretrained(broken)
    message = str(error.value)
    assert "missing: model.norm.weight" in message
    assert "unexpected: model.extra" in message
    assert "wrong shape: lm_head.weight (7, 192) instead of" in message


def test_a_missing_diffusion_config_is_named(broken):
    (broken / "diffusion" / "vae" / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"vae/config\.json is missing"):
        BLIP3oNext.from_pretrained(broken)


def test_a_tokenizer_that_disagrees_with_the_config_is_refused(broken):
    config = load_config(broken)
    shift = {key: getattr(config, key) - 1 for key in ("image_start_token_id", "image_end_token_id")}
    edit_config(broken, **shift)
    with pytest.raises(CheckpointError, match="token <I0> has id"):
        PromptEncoder.from_pretrained(broken)
