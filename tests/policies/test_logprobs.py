"""Chunked log-probs: the plain computation's numbers and gradients, without ever holding all logits."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from blip3o_grpo.policies import image_logprobs
from blip3o_grpo.policies.blip3o_next import prefill
from blip3o_grpo.policies.blip3o_next.logprobs import LOGITS_AT_ONCE, token_logprobs
from blip3o_grpo.policies.blip3o_next.positions import position_ids


def plain(hidden, rows, targets, temperature):
    """Log-probs and entropies with all logits at once."""
    logprobs = F.log_softmax(F.linear(hidden, rows).float() / temperature, dim=-1)
    return logprobs.gather(-1, targets[..., None])[..., 0], -(logprobs.exp() * logprobs).sum(-1)


def draw(shape=(3, 37), width=16, num_tokens=50, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(*shape, width, generator=generator).to(dtype).requires_grad_()
    rows = (torch.randn(num_tokens, width, generator=generator) / width**0.5).to(dtype).requires_grad_()
    return hidden, rows, torch.randint(num_tokens, shape, generator=generator), torch.randn(shape, generator=generator)


@pytest.mark.parametrize("logits_at_once", [2**26, 7 * 50, 1], ids=["one chunk", "a rest", "token by token"])
@pytest.mark.parametrize("weight_of_entropy", [0.0, 0.3])
def test_values_and_gradients_are_those_of_the_plain_computation(logits_at_once, weight_of_entropy):
    hidden, rows, targets, advantages = draw()
    results = []
    for logprobs, entropy in (
        plain(hidden, rows, targets, 0.7),
        token_logprobs(hidden, rows, targets, 0.7, entropy=True, logits_at_once=logits_at_once),
    ):
        loss = (advantages * logprobs.exp() + weight_of_entropy * entropy).mean()
        results.append((logprobs, entropy, *torch.autograd.grad(loss, (hidden, rows))))
    for theirs, ours in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)


def test_gradients_reach_only_what_wants_them():
    hidden, rows, targets, advantages = draw()
    (expected,) = torch.autograd.grad((plain(hidden, rows, targets, 1.0)[0] * advantages).sum(), hidden)
    logprobs, entropy = token_logprobs(hidden, rows.detach(), targets, logits_at_once=200)  # as with LoRA
    (ours,) = torch.autograd.grad((logprobs * advantages).sum(), hidden)
    assert entropy is None
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=0)
    assert not token_logprobs(hidden.detach(), rows.detach(), targets)[0].requires_grad


def test_gradients_of_the_rows_alone_and_of_the_entropy_alone():
    hidden, rows, targets, _ = draw()
    expected = torch.autograd.grad(plain(hidden, rows, targets, 0.7)[1].sum(), (hidden, rows))
    for given, wanted, theirs in (((hidden, rows.detach()), hidden, 0), ((hidden.detach(), rows), rows, 1)):
        _, entropy = token_logprobs(*given, targets, 0.7, entropy=True, logits_at_once=200)
        (ours,) = torch.autograd.grad(entropy.sum(), wanted)
        torch.testing.assert_close(ours, expected[theirs], atol=1e-5, rtol=0)


class LargestTensor(TorchDispatchMode):
    """Values of the largest tensor any operation inside the block returns."""

    numel = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        sizes = [
            leaf.untyped_storage().nbytes() // leaf.itemsize
            for leaf in tree_leaves(result)
            if isinstance(leaf, torch.Tensor)
        ]
        self.numel = max([self.numel, *sizes])
        return result


@pytest.mark.parametrize(("num_rows", "num_tokens"), [(64, 300), (512, 300), (64, 2400)])
def test_no_tensor_grows_with_vocabulary_times_sequence(num_rows, num_tokens):
    """Nothing is larger than a chunk, the inputs or their gradients, whatever the product of both sizes."""
    hidden, rows, targets, _ = draw((num_rows,), 8, num_tokens)
    with LargestTensor() as ours:
        logprobs, entropy = token_logprobs(hidden, rows, targets, entropy=True, logits_at_once=4096)
        (logprobs.sum() + entropy.sum()).backward()
    with LargestTensor() as whole:
        plain(hidden, rows, targets, 1.0)[0].sum().backward()
    assert whole.numel >= num_rows * num_tokens
    assert ours.numel <= max(4096, hidden.numel(), rows.numel())


def test_as_few_as_one_token_is_computed_at_a_time():
    hidden, rows, targets, _ = draw((4,), 1, 2000)
    for at_once, tokens in ((1, 1), (2000, 1), (3999, 1), (4000, 2)):
        with LargestTensor() as ours:
            token_logprobs(hidden, rows, targets, entropy=True, logits_at_once=at_once)[0].sum().backward()
        assert ours.numel == tokens * 2000


def test_logits_of_1024_tokens_of_the_released_model_are_held_at_once():
    assert LOGITS_AT_ONCE * torch.float32.itemsize == 256 * 2**20
    assert LOGITS_AT_ONCE // 65_536 == 1024


def test_bfloat16_products_are_reduced_in_float32():
    hidden, rows, targets, _ = draw(dtype=torch.bfloat16)
    ours, entropy = token_logprobs(hidden, rows, targets, 0.7, entropy=True, logits_at_once=200)
    logits = F.linear(hidden, rows).float() / 0.7
    assert ours.dtype == entropy.dtype == torch.float32
    expected = logits.log_softmax(-1).gather(-1, targets[..., None])[..., 0]
    torch.testing.assert_close(ours, expected, atol=1e-6, rtol=0)


def test_autocast_computes_in_bfloat16_and_returns_float32_gradients():
    hidden, rows, targets, _ = draw()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours, _ = token_logprobs(hidden, rows, targets, logits_at_once=200)
    expected, _ = token_logprobs(hidden.bfloat16(), rows.bfloat16(), targets, logits_at_once=200)
    torch.testing.assert_close(ours, expected, atol=0, rtol=0)
    for grad in torch.autograd.grad(ours.sum(), (hidden, rows)):
        assert grad.dtype == torch.float32


def test_positions_count_real_tokens_only():
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    assert position_ids(mask).tolist() == [[0, 0, 0, 1, 2], [0, 1, 2, 3, 4]]
    assert position_ids(mask.bool()).tolist() == position_ids(mask).tolist()


@pytest.mark.parametrize("given", [{}, {"temperature": 2.0, "entropy": True}], ids=["as it is", "warmer"])
def test_image_logprobs_are_those_of_the_whole_model_over_the_image_tokens_alone(policy, written, given):
    ids, mask = written
    space, length = policy.image_tokens, policy.image_tokens.num_tokens
    with torch.no_grad():
        logits = policy.ar(input_ids=ids, attention_mask=mask, position_ids=position_ids(mask)).logits
        logits = logits[:, -length - 1 : -1, space.start : space.stop] / given.get("temperature", 1.0)
        found, entropy = image_logprobs(policy.ar, ids, mask, space, **given)
    expected = torch.distributions.Categorical(logits=logits)
    torch.testing.assert_close(found, expected.log_prob(ids[:, -length:] - space.start), atol=1e-5, rtol=0)
    if given:
        torch.testing.assert_close(entropy, expected.entropy(), atol=1e-5, rtol=0)
    else:
        assert entropy is None


@pytest.mark.parametrize("sizes", [[3, 1, 2], [1, 1, 1], [4]], ids=str)
def test_siblings_that_share_their_prompt_have_the_numbers_and_gradients_of_rows_alone(policy, sizes, monkeypatch):
    """Left-padded prompts of different lengths, also padded more than these rows need."""
    monkeypatch.setattr(prefill, "SHARED_FROM", 0.1)
    space, generator = policy.image_tokens, torch.Generator().manual_seed(0)
    prompts = ["a sign", 'a red sign that says "TAXI"', "a photo of two blue circles and a long afterthought"]
    rows = [policy.prompts.encode(text) for text, size in zip(prompts, sizes, strict=False) for _ in range(size)]
    ids, mask = policy.prompts.pad(rows)
    drawn = torch.randint(space.start, space.stop, (len(rows), space.num_tokens), generator=generator)
    padding = torch.zeros(len(rows), 3, dtype=ids.dtype)
    ids, mask = torch.cat([padding, ids, drawn], 1), torch.cat([padding, mask, torch.ones_like(drawn)], 1)
    calls = []
    hook = policy.ar.model.register_forward_pre_hook(lambda *_: calls.append(1))

    def computed(share):
        calls.clear()
        logprobs, entropy = image_logprobs(policy.ar, ids, mask, space, entropy=True, share_prompts=share)
        parameters = [value for value in policy.ar.parameters() if value.requires_grad]
        return logprobs, entropy, torch.autograd.grad((logprobs.sum(1) ** 2).sum() + entropy.sum(), parameters)

    image_logprobs(policy.ar, ids, mask, space)
    assert len(calls) == 1  # each row for itself, unless asked otherwise
    expected = computed(False)
    assert len(calls) == 1
    shared = computed(True)
    assert len(calls) == (1 if len(sizes) == len(rows) else 2)
    hook.remove()
    torch.testing.assert_close(shared[0], expected[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(shared[1], expected[1], atol=1e-5, rtol=0)
    for found, wanted in zip(shared[2], expected[2], strict=True):
        assert (found - wanted).norm() <= 1e-5 * wanted.norm() + 1e-6


def test_only_image_rows_of_the_head_learn_and_the_head_stays_a_linear_layer(policy, written):
    ids, mask = written
    space, head = policy.image_tokens, policy.ar.lm_head
    logits = head(torch.zeros(1, policy.config.hidden_size))
    logprobs, _ = image_logprobs(policy.ar, ids, mask, space)
    (grad,) = torch.autograd.grad(logprobs.mean(), head.weight)
    assert grad[space.start : space.stop].abs().sum() > 0
    assert grad[: space.start].abs().sum() == grad[space.stop :].abs().sum() == 0
    assert "forward" not in vars(head)
    assert logits.shape == (1, policy.config.vocab_size)
    assert head(torch.zeros(1, policy.config.hidden_size)).shape == logits.shape
