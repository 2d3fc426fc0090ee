"""Direct sampling stays inside the action space, repeats itself, and does not care about padding."""

import torch

from blip3o_grpo.policies.blip3o_next.decoding import decode_completions
from blip3o_grpo.policies.blip3o_next.sampling import sample_image_tokens

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
