"""BLIP3-o: prompts, reading, the guided flow and round trips on a tiny policy with random weights."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from blip3o_grpo.configs.head import FlowGRPOSection
from blip3o_grpo.policies import BLIP3oNext, CheckpointError, PromptError
from blip3o_grpo.policies.blip3o.policy import BLIP3o
from blip3o_grpo.policies.blip3o.prompt_encoder import QueryPromptEncoder
from blip3o_grpo.policies.blip3o_next.denoising import denoise, path_noise, velocity
from blip3o_grpo.policies.blip3o_next.stochastic import noisy_step
from blip3o_grpo.policies.kinds import KINDS, check_kind
from blip3o_grpo.policies.tiny_world.blip3o import random_blip3o

PROMPTS = ["a photo of a red star", "a photo of two blue circles and much more than that"]
QUERIES = 5


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny BLIP3-o whose transformer says something else than 0."""
    path = random_blip3o(tmp_path_factory.mktemp("blip3o"), seed=3, num_queries=QUERIES)
    policy = BLIP3o.from_pretrained(path)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in policy.dit.named_parameters():
            if name != "pad_token":
                value.add_(0.1 * torch.randn(value.shape, generator=generator))
    policy.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def policy(folder):
    return BLIP3o.from_pretrained(folder)


@pytest.fixture(scope="module")
def condition(policy):
    with torch.no_grad():
        return policy.condition([policy.prompts.encode(prompt) for prompt in PROMPTS])


def test_a_prompt_is_the_chat_and_the_opening_of_an_image(policy, folder):
    text = policy.prompts.render("a cat")
    assert text.startswith(
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\nPlease generate"
    )
    assert text.endswith("caption: a cat<|im_end|>\n<|im_start|>assistant\n[IMG]")
    ids = policy.prompts.encode("a cat")
    assert ids[-1] == policy.config["image_start_token_id"] and ids.count(ids[-1]) == 1
    assert QueryPromptEncoder.from_pretrained(folder, plain=True).encode("a cat") == ids


@pytest.mark.parametrize("prompt", ["a [IMG] of a cat", "a [/IMG]", "a <image>", ""])
def test_a_prompt_with_a_token_of_the_format_is_refused(policy, prompt):
    with pytest.raises(PromptError):
        policy.prompts.encode(prompt)


def test_neither_padding_nor_the_batch_changes_a_condition(policy, condition):
    assert condition.shape == (2, QUERIES, policy.config["ar"]["hidden_size"])
    for row, prompt in enumerate(PROMPTS):
        alone = policy.condition([policy.prompts.encode(prompt)])
        torch.testing.assert_close(alone[0], condition[row], atol=1e-5, rtol=1e-4)


def test_equal_prompts_are_read_once(policy, condition):
    seen = []
    hook = policy.ar.layers[0].register_forward_hook(lambda module, inputs, output: seen.append(len(inputs[0])))
    first, second = (policy.prompts.encode(prompt) for prompt in PROMPTS)
    found = policy.condition([first, second, first, first])
    hook.remove()
    assert seen == [2]
    torch.testing.assert_close(found, condition[[0, 1, 0, 0]])


def test_later_queries_see_earlier_ones_and_the_prompt(policy):
    ids, mask = policy.prompts.pad([policy.prompts.encode(PROMPTS[0])])
    queries = policy.latent_queries.detach().clone().requires_grad_(True)
    policy.latent_queries.data, kept = queries.data, policy.latent_queries.data
    whole = policy.read(ids, mask)
    changed = queries.detach().clone()
    changed[0, 2] += 1
    policy.latent_queries.data = changed
    moved = (policy.read(ids, mask) - whole).abs().amax((0, 2))
    policy.latent_queries.data = kept
    assert (moved[:2] == 0).all() and (moved[2:] > 1e-6).all()


def test_sampling_is_eulers_with_guidance_against_zeros(policy, condition):
    """Written out: sigmas 1, 2/3, 1/3, 0; the velocity is that of both branches, `unconditional + 3 difference`."""
    noise = policy.noise([4, 5])
    assert noise.shape == (2, 32, 7, 7) and not torch.equal(noise[0], noise[1])
    torch.testing.assert_close(policy.noise([5])[0], noise[1])
    features = noise
    with torch.no_grad():
        for step, level in enumerate((1, 2 / 3, 1 / 3)):
            time = torch.full((2,), 1000 * level)
            seen, nothing = policy.connector(condition), policy.connector(torch.zeros_like(condition))
            with_condition, without = (policy.dit(features, time, states).sample for states in (seen, nothing))
            features = features - (without + 3 * (with_condition - without)) / 3
            assert step or not torch.allclose(with_condition, without, atol=1e-3)
    found = policy.denoise(condition, noise, num_steps=3, guidance_scale=3.0)
    torch.testing.assert_close(found, features, atol=1e-4, rtol=1e-4)
    images = policy.latents_to_images(found)
    assert images.shape == (2, 56, 56, 3) and images.dtype == torch.uint8


def test_the_velocity_that_learns_is_the_samplers(policy, condition):
    """One guided Euler step by `velocity`, and a noisy first step, are what `denoise` did."""
    seeds, time = [1, 2], torch.full((2,), 1000.0)
    guided = torch.ones(2, dtype=torch.bool)
    noise = policy.noise(seeds)
    found = velocity(policy, condition, noise, time, guided, 3.0)
    assert found.requires_grad
    torch.testing.assert_close(noise - found, policy.denoise(condition, noise, 1, 3.0), atol=1e-4, rtol=1e-4)
    how = FlowGRPOSection(type="flow_grpo")
    draws = path_noise(policy, seeds, how)
    path = denoise(policy, condition, draws, 2, 3.0, stochastic=how)
    mean, std = noisy_step(draws[:, 0], found.detach(), 1.0, 0.5, how)
    assert path.shape == (2, 3, 32, 7, 7)
    torch.testing.assert_close(path[:, 1], mean + std * draws[:, 1], atol=1e-4, rtol=1e-4)


def test_a_new_transformer_passes_nothing_on(tmp_path):
    policy = BLIP3o.from_pretrained(random_blip3o(tmp_path))
    seen = policy.connector(torch.randn(1, 16, 128))
    assert not policy.dit(torch.randn(1, 32, 7, 7), torch.tensor([500.0]), seen).sample.any()
    assert not policy.dit.pad_token.any()


def test_a_round_trip_keeps_every_value(policy, folder, tmp_path):
    policy.save_pretrained(tmp_path)
    first, second = (load_file(path / "model.safetensors") for path in (folder, tmp_path))
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        assert (folder / name).read_bytes() == (tmp_path / name).read_bytes(), name
    half = BLIP3o.from_pretrained(tmp_path, dtype=torch.bfloat16, parts=("head",))
    assert half.dit.dtype == torch.bfloat16 and half.ar is half.decoder is half.latent_queries is None
    assert half.dit.time_caption_embed.caption_embedder[1].weight.dtype == torch.bfloat16


def test_another_policys_checkpoint_is_refused_in_one_line(folder):
    with pytest.raises(CheckpointError, match="expected 'blip3o'") as refused:
        BLIP3o.check("tiny")
    with pytest.raises(CheckpointError, match="model_type is 'blip3o'") as other:
        BLIP3oNext.check(folder)
    assert "\n" not in str(refused.value) + str(other.value)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda values: values.pop("num_queries"), "missing key 'num_queries'"),
        (lambda values: values["dit"].update(num_layers="4"), "dit.num_layers is '4'"),
        (lambda values: values.pop("scheduler"), "missing section 'scheduler'"),
        (lambda values: values.update(image_start_token_id=2**20), "outside the vocabulary"),
        (lambda values: values.update(image_start_token_id=3), r"tokenizer's \[IMG\] has id"),
        (lambda values: values.update(num_queries=256), "leaves no room for a prompt"),
        (lambda values: values.update(num_queries=4), "wrong shape: latent_queries"),
        (lambda values: values["dit"].update(num_attention_heads=3), "no model can be built"),
        (lambda values: values["pixel_decoder"].update(scaling_factor=0), "pixel_decoder.scaling_factor is 0"),
        (lambda values: values["pixel_decoder"].update(scaling_factor="1"), "expected a number above 0"),
        (lambda values: values["pixel_decoder"].update(encoder_block_out_channels=4), "expected a list of whole"),
        (lambda values: values["scheduler"].update(shift=float("nan")), "scheduler.shift is nan"),
        (lambda values: values["scheduler"].update(use_dynamic_shifting=True), "scheduler.use_dynamic_shifting"),
    ],
)
def test_a_config_that_does_not_fit_is_told_before_a_weight_is_read(folder, tmp_path, change, told):
    policy_folder = tmp_path / "policy"
    policy_folder.mkdir()
    for file in folder.iterdir():
        (policy_folder / file.name).symlink_to(file)
    values = json.loads((folder / "config.json").read_text())
    change(values)
    (policy_folder / "config.json").unlink()
    (policy_folder / "config.json").write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match=told):
        BLIP3o.check(policy_folder)


@pytest.mark.parametrize("model_type", [None, 3, ["blip3o"], {"of": "blip3o"}, "llama"])
def test_nobodys_checkpoint_is_no_other_policys(tmp_path, model_type):
    """What the kind itself says of it is told then, not to change the recipe's `policy.type`."""
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    for name in KINDS:
        check_kind(tmp_path, name)
        with pytest.raises(CheckpointError, match="model_type is .*expected"):
            KINDS[name].check_headers(tmp_path)


def test_missing_and_unexpected_tensors_are_named(folder, tmp_path):
    policy = BLIP3o.from_pretrained(folder)
    policy.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["dit.more"] = tensors.pop("latent_queries")
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"missing: latent_queries; unexpected: dit\.more"):
        BLIP3o.check(tmp_path)
