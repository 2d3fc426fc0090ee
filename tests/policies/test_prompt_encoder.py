"""The prompt format is the released one, and prompts that do not fit are refused by name."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blip3o_grpo.policies import PromptError
from blip3o_grpo.policies.blip3o_next.prompt_encoder import unusable_character


def test_the_rendered_prompt_is_the_released_format(policy):
    assert policy.prompts.render("a cat") == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\nPlease generate image based on the following caption: a cat<|im_end|>\n"
        "<|im_start|>assistant\n<im_start><S0>"
    )


def test_ids_end_in_the_image_opening(policy):
    ids = policy.prompts.encode("a cat")
    assert ids[-2:] == [policy.config.image_start_tag_id, policy.config.scale_start_token_id]


def test_capitals_are_spelt_letter_by_letter(policy):
    tokens = policy.prompts.tokenizer.convert_ids_to_tokens(policy.prompts.encode('a sign that says "TAXI"'))
    assert [token for token in tokens if token in "TAXI"] == list("TAXI")


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(min_size=1, max_size=20).filter(lambda text: text.strip() and not unusable_character(text)))
def test_any_text_is_encoded_without_loss(policy, text):
    tokenizer = policy.prompts.tokenizer
    rendered = policy.prompts.render(text)
    assert tokenizer.decode(policy.prompts.encode(text), clean_up_tokenization_spaces=False) == rendered


def test_padding_is_on_the_left(policy):
    ids, mask = policy.prompts.pad([[5, 6], [7, 8, 9]])
    assert ids.tolist() == [[0, 5, 6], [7, 8, 9]]
    assert mask.tolist() == [[0, 1, 1], [1, 1, 1]]


def test_empty_and_too_long_prompts_are_refused(policy):
    with pytest.raises(PromptError, match="empty"):
        policy.prompts.encode("  ")
    with pytest.raises(PromptError, match="'A A A .*leaves room for 207"):
        policy.prompts.encode("A " * 300)
