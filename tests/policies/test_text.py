"""The text side: distributions over the rows that are no image tokens, and how far apart two of them are."""

import math

import pytest
import torch

from blip3o_grpo.policies import PromptError
from blip3o_grpo.policies.blip3o_next.reader import ImageReader
from blip3o_grpo.policies.blip3o_next.text import followed, pad_texts, sum_by_row, text_logprobs, text_targets, token_kl

TEXTS = ["a red sign", "The river froze in January.", "two"]


@pytest.fixture(scope="module")
def encoded(policy):
    return [policy.prompts.encode_text(text) for text in TEXTS]


def test_log_probs_are_those_of_the_plain_model_without_its_image_rows(policy, encoded):
    """One by one, unpadded, against transformers' own logits."""
    space = policy.image_tokens
    ids, mask = pad_texts(encoded)
    with torch.no_grad():
        ours = text_logprobs(policy.ar, ids, mask, space)
        targets = text_targets(ids, followed(mask), space)
        expected, chosen = [], []
        for text in encoded:
            logits = policy.ar(torch.tensor([text])).logits[0, :-1]
            text_only = [row for row in range(policy.config.vocab_size) if not space.start <= row < space.stop]
            expected.append(logits[:, text_only].log_softmax(-1))
            chosen += [text_only.index(token) for token in text[1:]]
    torch.testing.assert_close(ours, torch.cat(expected), atol=1e-5, rtol=0)
    assert targets.tolist() == chosen
    assert ours.shape[1] == policy.config.vocab_size - space.size


def test_the_distance_of_two_distributions_is_exact_and_of_the_same_direction_everywhere():
    start = torch.tensor([[0.5, 0.5], [0.25, 0.75]]).log()
    policy = torch.tensor([[0.5, 0.5], [0.5, 0.5]]).log()
    expected = 0.25 * math.log(0.5) + 0.75 * math.log(1.5)
    torch.testing.assert_close(token_kl(policy, start), torch.tensor([0.0, expected]))


def test_values_are_added_up_by_text():
    _, mask = pad_texts([[1, 2, 3], [4, 5], [6, 7, 8, 9]])
    places = followed(mask)
    assert places.sum(1).tolist() == [2, 1, 3]
    assert sum_by_row(torch.arange(6.0), places).tolist() == [1.0, 2.0, 12.0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\x00 odd", r"holds the character U\+0000"),
        ("a <I5> b", "holds <I5>, which the policy reads as a token of its own"),
        ("a", "is one token, and nothing comes before it"),
        ("word " * 500, "the model's context leaves room for"),
    ],
)
def test_what_is_no_text_is_refused(policy, text, message):
    with pytest.raises(PromptError, match=message):
        policy.prompts.encode_text(text)


@pytest.fixture(scope="module")
def reader(policy):
    return ImageReader(policy)


@pytest.fixture(scope="module")
def seen(reader):
    picture = torch.randint(256, (90, 70, 3), generator=torch.Generator().manual_seed(1)).to(torch.uint8).numpy()
    return reader.see([picture])


def test_a_picture_becomes_its_tokens_before_the_question(policy, reader, seen):
    space, vocabulary = policy.image_tokens, policy.prompts.tokenizer.get_vocab()
    ids = reader.ask("Which shape is this?", seen, room=1)
    first = ids.index(vocabulary["<im_start>"])
    assert ids[first + 1] == vocabulary["<S0>"]
    assert ids[first + 2 : first + 2 + space.num_tokens] == [space.start + code for code in seen[0]]
    assert ids[first + 2 + space.num_tokens] == vocabulary["<im_end>"]
    assert policy.prompts.tokenizer.decode(ids).rstrip().endswith("<|im_start|>assistant")


def test_likelihoods_are_those_of_the_text_vocabulary_and_greedy_is_what_is_written(policy, reader, seen):
    question, space = "What colour?", policy.image_tokens
    written = reader.generate(question, seen, max_new_tokens=3)
    asked = reader.ask(question, seen, room=8)
    for answer in ("red", "green sign"):
        ((found, _),) = reader.loglikelihoods(question, seen, [answer])
        (together, _) = reader.loglikelihoods(question, seen, ["a much longer answer", answer])[1]
        answer_ids = policy.prompts.tokenizer(answer, add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            logits = policy.ar(torch.tensor([asked + answer_ids])).logits[0, len(asked) - 1 : -1]
        logits[:, space.start : space.stop] = -torch.inf
        expected = logits.log_softmax(-1).gather(1, torch.tensor(answer_ids)[:, None]).sum().item()
        assert found == pytest.approx(expected, abs=1e-4) and together == pytest.approx(expected, abs=1e-4)
    with torch.no_grad():
        logits = policy.ar(torch.tensor([asked])).logits[0, -1]
    logits[space.start : space.stop] = -torch.inf
    first = int(logits.argmax())
    assert written.startswith(policy.prompts.tokenizer.decode([first], skip_special_tokens=True))


def test_a_question_that_does_not_fit_is_refused(reader, seen):
    with pytest.raises(PromptError, match=r"with 9 pictures is \d+ tokens long; with 1 for an answer"):
        reader.ask("What?", seen * 9, room=1)
    with pytest.raises(PromptError, match="holds <I1>"):
        reader.ask("What is <I1>?", seen, room=1)
