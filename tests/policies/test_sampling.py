"""Direct sampling stays inside the action space, repeats itself, and does not care about padding."""

import pytest
import torch
from transformers import TopKLogitsWarper, TopPLogitsWarper

from blip3o_grpo.policies.blip3o_next.decoding import decode_completions
from blip3o_grpo.policies.blip3o_next.sampling import cut_logits, sample_image_tokens

PROMPTS = ('a red sign that says "TAXI"', "a photo of two blue circles and a very long afterthought")


def test_tokens_are_image_tokens_and_repeatable(policy):
    encoded = [policy.prompts.encode(prompt) for prompt in PROMPTS]
    tokens = sample_image_tokens(policy, encoded, seed=1)
    space = policy.image_tokens
    assert tokens.shape == (2, space.num_tokens)
    assert ((tokens >= space.start) & (tokens < space.stop)).all()
    assert torch.equal(tokens, sample_image_tokens(policy, encoded, seed=1))
    assert not torch.equal(tokens, sample_image_tokens(policy, encoded, seed=2))


def test_padding_changes_no_choice(policy):
    """At a temperature near 0 the most likely token wins, alone or beside a longer prompt."""
    short, long = (policy.prompts.encode(prompt) for prompt in PROMPTS)
    assert len(short) < len(long)
    alone = sample_image_tokens(policy, [short], seed=0, temperature=1e-4)
    together = sample_image_tokens(policy, [short, long], seed=0, temperature=1e-4)
    assert torch.equal(alone[0], together[0])


def test_the_same_tokens_and_noise_paint_the_same_image(policy):
    encoded = [policy.prompts.encode(PROMPTS[0])] * 2
    tokens = sample_image_tokens(policy, encoded[:1], seed=0).expand(2, -1)
    first, second = decode_completions(policy, encoded, tokens, [5, 5], num_steps=2, guidance_scale=2.0)
    assert first.shape == (56, 56, 3)
    assert (first == second).all()
    _, other = decode_completions(policy, encoded, tokens, [5, 6], num_steps=2, guidance_scale=2.0)
    assert (first != other).any()


@pytest.mark.parametrize(
    ("top_p", "top_k"), [(1.0, 0), (0.95, 0), (1.0, 12), (0.95, 12), (1e-9, 0), (1.0, 1), (0.5, 999)]
)
def test_cuts_are_those_of_transformers(top_p, top_k):
    logits = 3 * torch.randn(5, 64, generator=torch.Generator().manual_seed(0))
    expected = TopKLogitsWarper(min(top_k, 64))(None, logits) if top_k else logits
    expected = TopPLogitsWarper(top_p)(None, expected) if top_p < 1 else expected
    assert torch.equal(cut_logits(logits, top_p, top_k), expected)


def test_top_k_1_and_a_tiny_top_p_draw_the_likeliest(policy):
    encoded = [policy.prompts.encode(PROMPTS[0])]
    likeliest = sample_image_tokens(policy, encoded, seed=0, temperature=1e-4)
    assert torch.equal(sample_image_tokens(policy, encoded, seed=3, top_k=1), likeliest)
    assert torch.equal(sample_image_tokens(policy, encoded, seed=4, top_p=1e-6), likeliest)
