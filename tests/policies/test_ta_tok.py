"""TA-Tok's own file: read without running code, and the same tokenizer as from a checkpoint."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from blip3o_grpo.policies import BLIP3oNext, CheckpointError
from blip3o_grpo.policies.blip3o_next.checkpoint import PREFIXES, released_name
from blip3o_grpo.policies.blip3o_next.ta_tok import load_ta_tok


def published(policy: BLIP3oNext) -> dict:
    """The content of `ta_tok.pth` for a policy's tokenizer, with leftovers of its teacher."""
    prefix = PREFIXES["vision"]
    tensors = {released_name("vision", k).removeprefix(prefix): v for k, v in policy.vision.state_dict().items()}
    tensors |= {"teacher.logit_scale": torch.zeros(1), "scale_layer.shift": torch.full((1, 3, 1, 1), 0.5)}
    regularizer = {"name": "simvq", "args": {"codebook_size": 1536, "l2_normalized": False}}
    bottleneck = {"name": "bottleneck", "args": {"bottleneck_dim": 16, "regularizer": regularizer}}
    sizes = {"bottleneck": bottleneck, "bottleneck_token_num": 49, "input_size": 56, "decoder_depth": 1}
    return {"model": {"args": sizes, "sd": tensors}}


@pytest.fixture
def file(policy: BLIP3oNext, tmp_path: Path) -> Path:
    torch.save(published(policy), tmp_path / "ta_tok.pth")
    return tmp_path / "ta_tok.pth"


def test_it_is_the_tokenizer_of_the_checkpoint(policy, file):
    vision = load_ta_tok(file, tower=policy.config.vision_tower_config)
    images = torch.rand(2, 3, 56, 56)
    assert torch.equal(vision.encode(images), policy.vision.encode(images))
    assert torch.equal(vision.scale_layer.shift, torch.full((1, 3, 1, 1), 0.5))


def test_a_checkpoint_without_vision_weights_takes_the_file_it_names(policy, folder, file, tmp_path):
    bare = Path(shutil.copytree(folder, tmp_path / "bare"))
    tensors = load_file(bare / "model.safetensors")
    save_file(
        {name: tensor for name, tensor in tensors.items() if not name.startswith(PREFIXES["vision"])},
        bare / "model.safetensors",
    )
    BLIP3oNext.from_pretrained(bare)
    with pytest.raises(CheckpointError, match=r"missing: model\.vision_tower\.vision_tower\."):
        BLIP3oNext.from_pretrained(bare, parts=("vision",))
    config = bare / "config.json"
    config.write_text(config.read_text().replace("{", '{"mm_vision_tower": "ta_tok.pth",', 1))
    shutil.copy(file, bare)
    loaded = BLIP3oNext.from_pretrained(bare, parts=("vision",))
    images = torch.rand(1, 3, 56, 56)
    assert torch.equal(loaded.vision.encode(images), policy.vision.encode(images))


def test_a_file_that_runs_code_is_refused(tmp_path):
    class Payload:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    torch.save({"model": {"args": {}, "sd": {"x": Payload()}}}, tmp_path / "bad.pth")
    with pytest.raises(CheckpointError, match="refused, because it holds more than tensors"):
        load_ta_tok(tmp_path / "bad.pth")
    assert not (tmp_path / "ran").exists()


def test_bad_files_are_named(policy, file, tmp_path):
    with pytest.raises(CheckpointError, match="no such file"):
        load_ta_tok(tmp_path / "nowhere.pth")
    with pytest.raises(CheckpointError, match="has 1536 codes, the policy has 64 image tokens"):
        load_ta_tok(file, tower=policy.config.vision_tower_config, num_codes=64)
    content = published(policy)
    content["model"]["sd"]["surprise"] = content["model"]["sd"].pop("bottleneck.in_linear.bias")
    torch.save(content, file)
    with pytest.raises(CheckpointError, match=r"missing: bottleneck\.in_linear\.bias; unexpected: surprise"):
        load_ta_tok(file, tower=policy.config.vision_tower_config)
    torch.save({"model": {"args": {}, "sd": {}}}, file)
    with pytest.raises(CheckpointError, match="names no sizes of a TA-Tok"):
        load_ta_tok(file)
    torch.save({"state_dict": {}}, file)
    with pytest.raises(CheckpointError, match="not a complete TA-Tok file"):
        load_ta_tok(file)
    file.write_bytes(file.read_bytes()[:300])
    with pytest.raises(CheckpointError, match="not a complete TA-Tok file"):
        load_ta_tok(file)
