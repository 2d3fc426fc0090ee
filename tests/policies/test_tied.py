"""Tied embeddings: whatever a file holds of the shared tensor, head and embedding are one, and stay one when saved."""

import json
import shutil

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import Qwen3Config, Qwen3ForCausalLM

from blip3o_grpo.policies import BLIP3oNext, CheckpointError, check_headers, image_logprobs, random_policy
from blip3o_grpo.policies.blip3o_next.checkpoint import PREFIXES, Weights, load_part
from blip3o_grpo.policies.blip3o_next.sampling import sample_image_tokens
from blip3o_grpo.policies.blip3o_next.tied import EMBEDDING, HEAD, TIE, is_tied, load_weights, shared_once

STORED = {
    "embedding": lambda tensor: {EMBEDDING: tensor},
    "head": lambda tensor: {HEAD: tensor},
    "both": lambda tensor: {EMBEDDING: tensor, HEAD: tensor.clone()},
    "another head": lambda tensor: {EMBEDDING: tensor, HEAD: tensor + 1},
}
"""What of the shared tensor a file holds, under which names."""


@pytest.fixture(scope="module")
def tied(tmp_path_factory):
    return random_policy(tmp_path_factory.mktemp("tied"), num_image_tokens=64, tie=True)


@pytest.fixture
def store(tied, tmp_path):
    """Writes a tied checkpoint that holds the shared tensor in one of the ways of `STORED`."""

    def written(way, **config):
        folder = tmp_path / way
        shutil.copytree(tied, folder)
        tensors = load_file(folder / "model.safetensors")
        save_file(tensors | STORED[way](tensors.pop(EMBEDDING)), folder / "model.safetensors")
        values = json.loads((folder / "config.json").read_text()) | config
        (folder / "config.json").write_text(json.dumps(values))
        return folder

    return written


def released_class(folder):
    """The AR part as the released class builds it: transformers' Qwen3, tied, filled with the stored tensors."""
    values = json.loads((folder / "config.json").read_text())
    values.pop("model_type")
    model = Qwen3ForCausalLM(Qwen3Config(**values)).eval()
    tensors = load_file(folder / "model.safetensors")
    ours = {name: tensor for name, tensor in tensors.items() if not name.startswith(tuple(PREFIXES.values()))}
    shared = ours.pop(HEAD, None)
    missing, unexpected = model.load_state_dict({EMBEDDING: shared} | ours, strict=False)
    assert missing == [HEAD] and not unexpected and is_tied(model)
    return model


@pytest.mark.parametrize("way", STORED)
@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_every_way_of_storing_loads_tied_and_computes_what_the_released_class_does(store, tied, way, dtype, caplog):
    folder = store(way)
    check_headers(folder)
    BLIP3oNext.check(folder)
    policy = BLIP3oNext.from_pretrained(folder, dtype=dtype)
    assert is_tied(policy.ar) and is_tied(policy.float().ar)
    plain = released_class(folder)
    for parameter in plain.parameters():  # rotary frequencies stay as they are
        parameter.data = parameter.data.to(dtype or torch.float32).float()
    ids = torch.randint(0, policy.config.vocab_size, (2, 60), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    space = policy.image_tokens
    with torch.no_grad():
        torch.testing.assert_close(policy.ar(ids).logits, plain(ids).logits, atol=1e-5, rtol=0)
        ids[:, -space.num_tokens :] = space.start + ids[:, -space.num_tokens :] % space.size
        logits = plain(ids).logits[:, -space.num_tokens - 1 : -1, space.start : space.stop]
        expected = F.log_softmax(logits, -1).gather(-1, ids[:, -space.num_tokens :, None] - space.start)[..., 0]
        found, _ = image_logprobs(policy.ar, ids, mask, space)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    warned = [record for record in caplog.records if HEAD in record.getMessage()]
    assert bool(warned) == (way == "another head")


@pytest.mark.parametrize("way", STORED)
def test_a_tied_policy_is_saved_with_the_embedding_only_and_loads_again(store, way, tmp_path):
    policy = BLIP3oNext.from_pretrained(store(way), dtype=None)
    policy.save_pretrained(tmp_path / "saved")
    saved = load_file(tmp_path / "saved" / "model.safetensors")
    assert HEAD not in saved and torch.equal(saved[EMBEDDING], policy.ar.lm_head.weight)
    assert json.loads((tmp_path / "saved" / "config.json").read_text())[TIE] is True
    again = BLIP3oNext.from_pretrained(tmp_path / "saved", dtype=None)
    assert is_tied(again.ar) and torch.equal(again.ar.lm_head.weight, policy.ar.lm_head.weight)


@pytest.mark.parametrize("way", STORED)
def test_a_loaded_part_stays_tied_and_takes_the_embedding(store, tied, way):
    policy = BLIP3oNext.from_pretrained(tied)
    with torch.no_grad():
        policy.ar.lm_head.weight.zero_()
    load_part(Weights(store(way)), "ar", policy.ar)
    assert is_tied(policy.ar) and torch.equal(
        policy.ar.lm_head.weight, BLIP3oNext.from_pretrained(tied).ar.lm_head.weight
    )


def test_a_step_moves_head_and_embedding_together_and_both_uses_add_to_the_gradient(tied, written_rows):
    policy = BLIP3oNext.from_pretrained(tied)
    ids, mask = written_rows(policy)
    loss = -image_logprobs(policy.ar, ids, mask, policy.image_tokens)[0].mean()
    loss.backward()
    apart = BLIP3oNext.from_pretrained(tied)
    apart.ar.lm_head.weight = nn.Parameter(apart.ar.lm_head.weight.detach().clone())
    (-image_logprobs(apart.ar, ids, mask, apart.image_tokens)[0].mean()).backward()
    both = apart.ar.lm_head.weight.grad + apart.ar.model.embed_tokens.weight.grad
    torch.testing.assert_close(policy.ar.lm_head.weight.grad, both, atol=1e-7, rtol=1e-5)
    torch.optim.AdamW(policy.ar.parameters(), lr=1e-2).step()
    assert is_tied(policy.ar)


@pytest.fixture
def written_rows():
    def rows(policy):
        ids, mask = policy.prompts.pad([policy.prompts.encode("a sign"), policy.prompts.encode("a photo of circles")])
        tokens = sample_image_tokens(policy, [policy.prompts.encode("a sign")] * 2, seed=1)
        return torch.cat([ids, tokens], 1), torch.cat([mask, torch.ones_like(tokens)], 1)

    return rows


def test_whoever_unties_a_policy_gets_a_config_that_says_so(store, tmp_path):
    policy = BLIP3oNext.from_pretrained(store("both"), dtype=None)
    policy.ar.lm_head.weight = nn.Parameter(policy.ar.lm_head.weight.detach() + 1)
    policy.save_pretrained(tmp_path / "untied")
    assert json.loads((tmp_path / "untied" / "config.json").read_text())[TIE] is False
    again = BLIP3oNext.from_pretrained(tmp_path / "untied", dtype=None)
    assert torch.equal(again.ar.lm_head.weight, policy.ar.lm_head.weight)
    assert not torch.equal(again.ar.lm_head.weight, again.ar.model.embed_tokens.weight)


def test_a_config_that_says_false_or_nothing_keeps_the_head(store):
    for value in (False, None):
        policy = BLIP3oNext.from_pretrained(store("another head", **{TIE: value}), dtype=None)
        assert not is_tied(policy.ar)
        assert torch.equal(policy.ar.lm_head.weight, policy.ar.model.embed_tokens.weight + 1)
        shutil.rmtree(policy.prompts.folder)


def test_weights_that_travel_hold_the_shared_tensor_once(tied):
    sent = BLIP3oNext.from_pretrained(tied).ar
    with torch.no_grad():
        sent.lm_head.weight.add_(1)
    travelling = shared_once(sent.state_dict())
    assert HEAD not in travelling and len(travelling) == len(sent.state_dict()) - 1
    for form in (travelling, sent.state_dict(), {**sent.state_dict(), HEAD: torch.zeros_like(sent.lm_head.weight)}):
        received = BLIP3oNext.from_pretrained(tied).ar
        load_weights(received, form)
        assert is_tied(received) and torch.equal(received.lm_head.weight, sent.lm_head.weight)


@pytest.mark.parametrize(
    ("config", "way", "message"),
    [
        ({TIE: "yes"}, "both", "tie_word_embeddings is 'yes', expected true or false"),
        ({TIE: 1}, "both", "tie_word_embeddings is 1, expected true or false"),
        ({TIE: False}, "embedding", r"missing: lm_head\.weight \(.* needs tie_word_embeddings: true in config\.json\)"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_line(store, config, way, message):
    folder = store(way, **config)
    with pytest.raises(CheckpointError, match=message) as refusal:
        check_headers(folder)
    assert "\n" not in str(refusal.value)


def test_a_tied_checkpoint_without_either_tensor_or_with_a_head_of_another_shape_is_refused(store):
    folder = store("both")
    tensors = load_file(folder / "model.safetensors")
    save_file(tensors | {HEAD: tensors[HEAD][:7]}, folder / "model.safetensors")
    for check in (check_headers, BLIP3oNext.check):
        with pytest.raises(CheckpointError, match=r"wrong shape: lm_head\.weight"):
            check(folder)
    save_file({k: v for k, v in tensors.items() if k not in (HEAD, EMBEDDING)}, folder / "model.safetensors")
    for check in (check_headers, BLIP3oNext.check):
        with pytest.raises(CheckpointError, match=r"missing: lm_head\.weight, model\.embed_tokens\.weight"):
            check(folder)
