"""The released layout: names, round trip, and a clear message for every way a folder can be broken."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from blip3o_grpo.policies import BLIP3oNext, CheckpointError, PromptEncoder, load_config, resolve_policy_path


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


def stored(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of a folder, whatever its files."""
    return {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}


@pytest.mark.parametrize("model_type", ["blip3o_qwen", "blip3o_qwen_inference", "blip3o_qwen_grpo"])
@pytest.mark.parametrize("which", ["random", "shipped", "scaled"])
def test_a_round_trip_changes_no_byte_and_no_config_key(which, model_type, folder, scaled, tmp_path):
    """Tiny with random weights in float32, the shipped one in bfloat16, and scaled-down released shapes in shards."""
    source = {"random": folder, "shipped": resolve_policy_path("tiny"), "scaled": scaled}[which]
    copy = Path(shutil.copytree(source, tmp_path / "copy"))
    edit_config(copy, model_type=model_type)
    BLIP3oNext.from_pretrained(copy, dtype=None, parts=("ar", "head", "vision")).save_pretrained(tmp_path / "saved")
    before, after = stored(copy), stored(tmp_path / "saved")
    assert before.keys() == after.keys() and (which != "scaled" or len(list(copy.glob("*.safetensors"))) > 2)
    for name in before:
        assert before[name].dtype == after[name].dtype and torch.equal(before[name], after[name]), name
    assert json.loads((copy / "config.json").read_text()) == json.loads((tmp_path / "saved/config.json").read_text())
    for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        assert (copy / file).read_bytes() == (tmp_path / "saved" / file).read_bytes()
    saved = BLIP3oNext.from_pretrained(tmp_path / "saved", dtype=None)  # its diffusion configs came along
    assert saved.config.released_model_type == model_type


def test_saving_into_its_own_folder_is_safe(broken):
    """What was loaded does not hang on the files it came from."""
    before = stored(broken)
    policy = BLIP3oNext.from_pretrained(broken, dtype=None, parts=("ar", "head", "vision"))
    policy.save_pretrained(broken)
    after = stored(broken)
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


def test_a_checkpoint_loads_in_any_dtype_and_says_which_it_is_saved_in(scaled, tmp_path):
    policy = BLIP3oNext.from_pretrained(scaled, parts=("ar",))
    assert {parameter.dtype for parameter in policy.parameters()} == {torch.float32}
    policy.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["torch_dtype"] == "float32"
    policy = BLIP3oNext.from_pretrained(scaled, dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in policy.parameters()} == {torch.bfloat16}
    assert policy.ar.model.rotary_emb.inv_freq.dtype == torch.float32  # as transformers keeps it


def test_tensors_of_parts_not_asked_for_are_not_read(broken):
    """RL ignores the vision tower, even one that would not fit."""

    def edit(tensors):
        tensors["model.vision_tower.vision_tower.surprise"] = torch.zeros(1)

    edit_weights(broken, edit)
    BLIP3oNext.from_pretrained(broken)
    with pytest.raises(CheckpointError, match=r"unexpected: model\.vision_tower\.vision_tower\.surprise"):
        BLIP3oNext.from_pretrained(broken, parts=("vision",))


def test_what_ta_tok_may_hold_beside_the_layout_is_kept(broken, tmp_path):
    """Its input scaling as buffers, and a learnt temperature: unused here, not lost."""
    names = ("scale_layer.shift", "scale_layer.scale", "bottleneck.regularizer.stochastic_temperature_inv")
    prefix = "model.vision_tower.vision_tower."
    extra = dict(zip(names, (torch.zeros(1, 3, 1, 1), torch.ones(1, 3, 1, 1), torch.tensor(10.0)), strict=True))
    edit_weights(broken, lambda tensors: tensors.update({prefix + name: value for name, value in extra.items()}))
    policy = BLIP3oNext.from_pretrained(broken, parts=("ar", "head", "vision"))
    policy.save_pretrained(tmp_path / "saved")
    after = stored(tmp_path / "saved")
    assert all(torch.equal(after[prefix + name], value) for name, value in extra.items())
    assert policy.vision.encode(torch.rand(1, 3, 56, 56)).shape == (1, 49)


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
        ({"vocab_size": "many"}, "vocab_size is 'many', expected a whole number"),
        ({"image_start_tag_id": 700}, "image_start_token_id=.* and image_start_tag_id=700 overlap"),
        ({"scale_end_token_id": 2000, "num_scale_tokens": 1642}, "scale_start_token_id=.* overlap"),
    ],
)
def test_a_bad_config_is_named_before_weights_are_read(broken, changes, message):
    edit_config(broken, **changes)
    (broken / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=message):
        load_config(broken)


def nothing_is_allocated(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("a model was built or a tensor was read")

    monkeypatch.setattr("blip3o_grpo.policies.blip3o_next.checkpoint.load_part", refuse)
    monkeypatch.setattr("blip3o_grpo.policies.blip3o_next.policy.load_part", refuse)
    monkeypatch.setattr("blip3o_grpo.policies.blip3o_next.checkpoint.Weights.read", refuse)


@pytest.fixture
def shards(scaled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A sharded copy to break, whose tensors must never be read."""
    nothing_is_allocated(monkeypatch)
    return Path(shutil.copytree(scaled, tmp_path / "shards"))


def refused(folder: Path, match: str) -> None:
    """Loading and checking give the same message."""
    for call in (BLIP3oNext.from_pretrained, BLIP3oNext.check):
        with pytest.raises(CheckpointError, match=match):
            call(folder)


def edit_index(folder: Path, edit) -> None:
    file = folder / "model.safetensors.index.json"
    values = json.loads(file.read_text())
    edit(values["weight_map"])
    file.write_text(json.dumps(values))


def test_a_missing_folder_or_file_is_named(broken, tmp_path, monkeypatch):
    nothing_is_allocated(monkeypatch)
    refused(tmp_path / "nowhere", "no such folder")
    (broken / "model.safetensors").rename(broken / "elsewhere")
    refused(broken, "neither model.safetensors nor")


def test_an_index_that_names_a_missing_file_is_refused(shards):
    edit_index(shards, lambda where: where.update({"lm_head.weight": "shard-7.safetensors"}))
    refused(shards, r"index\.json: names shard-7\.safetensors, which is missing")


def test_an_index_that_names_a_file_elsewhere_is_refused(shards):
    edit_index(shards, lambda where: where.update({"lm_head.weight": "../model.safetensors"}))
    refused(shards, r"names '\.\./model\.safetensors', which is not a file of this folder")


def test_an_index_and_shards_that_disagree_are_refused(shards):
    edit_index(shards, lambda where: where.update({"model.extra": where["lm_head.weight"]}))
    refused(shards, r"disagrees with .*not in the file: model\.extra")
    edit_index(shards, lambda where: [where.pop("model.extra"), where.pop("lm_head.weight")])
    refused(shards, r"disagrees with .*not in the index: lm_head\.weight")


def test_a_broken_index_is_refused(shards):
    (shards / "model.safetensors.index.json").write_text('{"weight_map": ')
    refused(shards, "not an index of shards")


@pytest.mark.parametrize("kept", [4, 1000, -1])
def test_a_truncated_shard_is_named(shards, kept):
    """Cut within the header's length, within the header, and by the last byte."""
    file = sorted(shards.glob("*.safetensors"))[-1]
    file.write_bytes(file.read_bytes()[:kept])
    refused(shards, rf"{file.name}: not a complete safetensors file")


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


def test_missing_keys_of_all_parts_come_in_one_message(shards):
    for file in sorted(shards.glob("*.safetensors")):
        tensors = load_file(file)
        tensors.pop("model.norm.weight", None)
        tensors.pop("model.diffusion_connector.3.weight", None)
        save_file(tensors, file, metadata={"format": "pt"})
    edit_index(shards, lambda where: [where.pop("model.norm.weight"), where.pop("model.diffusion_connector.3.weight")])
    refused(shards, r"missing: model\.diffusion_connector\.3\.weight, model\.norm\.weight$")


def test_a_tokenizer_that_disagrees_with_the_config_is_refused(broken):
    config = load_config(broken)
    ends = {"image_start_tag_id": config.image_end_tag_id, "image_end_tag_id": config.image_start_tag_id}
    edit_config(broken, **ends)
    with pytest.raises(CheckpointError, match="tokenizer's <im_start> has id"):
        PromptEncoder.from_pretrained(broken)


def test_a_tokenizer_without_the_image_tokens_is_refused(broken, monkeypatch):
    """The language model's own, before the image tokens were added."""
    nothing_is_allocated(monkeypatch)
    values = json.loads((broken / "tokenizer.json").read_text())
    values["added_tokens"] = [t for t in values["added_tokens"] if t["content"].startswith("<|")]
    (broken / "tokenizer.json").write_text(json.dumps(values))
    refused(broken, "the tokenizer lacks 1541 of the model's image tokens, <im_start> first")


def test_a_tokenizer_that_cannot_be_read_is_refused(broken, monkeypatch):
    nothing_is_allocated(monkeypatch)
    (broken / "tokenizer.json").write_text("{")
    refused(broken, "the tokenizer cannot be read")


def test_a_context_without_room_for_a_prompt_is_refused(broken, monkeypatch):
    nothing_is_allocated(monkeypatch)
    edit_config(broken, max_position_embeddings=49)
    refused(broken, "max_position_embeddings=49 leaves no room for a prompt beside the 49 tokens of an image")
