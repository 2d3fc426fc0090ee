"""Questions about pictures in the policy's words: image tokens and a question in one chat message.

A picture is `<im_start><S0>`, its tokens and `<im_end>`, as the policy writes one itself; then comes a line break and
the question. Tar (https://github.com/csuhan/Tar), from which the tokenizer is, puts tokens before a question likewise.
In which form, and whether at all, the released BLIP3o-NEXT was taught to answer was never published.
"""

from __future__ import annotations

from collections.abc import Sequence

from blip3o_grpo.policies.blip3o_next.prompt_encoder import (
    IMAGE_OPENING,
    SYSTEM,
    PromptEncoder,
    PromptError,
    unusable_character,
)

IMAGE_CLOSING = "<im_end>"


def check_words(encoder: PromptEncoder, text: str) -> None:
    """A question or an answer is text, and no token of the format.

    Raises:
        PromptError: it is empty, or holds what is neither.
    """
    if not text.strip():
        raise PromptError("a question or an answer is empty")
    if character := unusable_character(text):
        raise PromptError(f"{text[:60]!r} holds the character {character}, which is no text")
    if word := encoder.format_token(text):
        raise PromptError(f"{text[:60]!r} holds {word}, which the policy reads as a token of its own")


def encode_question(encoder: PromptEncoder, question: str, pictures: Sequence[Sequence[int]]) -> list[int]:
    """Token ids up to where the answer begins.

    Args:
        encoder: of the policy.
        question: in plain words.
        pictures: codes of each, 0 to the number of image tokens, in the order in which they are shown.

    Raises:
        PromptError: as `check_words`.
    """
    check_words(encoder, question)
    shown = "".join(
        f"{IMAGE_OPENING}{''.join(f'<I{code}>' for code in codes)}{IMAGE_CLOSING}" for codes in pictures
    )  # fmt: skip
    content = f"{shown}\n{question}" if shown else question
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": content}]
    rendered = encoder.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return encoder.tokenizer(rendered, add_special_tokens=False)["input_ids"]


def encode_answer(encoder: PromptEncoder, answer: str) -> list[int]:
    """Token ids of an answer, without the end of the message; raises PromptError as `check_words`."""
    check_words(encoder, answer)
    return encoder.tokenizer(answer, add_special_tokens=False)["input_ids"]
