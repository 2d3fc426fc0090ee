"""The benchmark's step draws from the softmax, and a mask and a slice draw alike."""

from __future__ import annotations

import torch

from scripts.bench_logits import OURS, WHOLE, draw, show


def test_draws_follow_the_softmax_with_and_without_masked_tokens():
    logits = torch.tensor([0.0, 1.0, 2.0])
    batch = 5_000
    masked = torch.full((batch, 5), -torch.inf)
    masked[:, 1:4] = logits
    for values, offset in ((logits.expand(batch, -1), 0), (masked, 1)):
        tokens, logprobs = draw(values, [torch.Generator().manual_seed(seed) for seed in range(batch)])
        frequencies = torch.bincount(tokens - offset, minlength=3) / batch
        torch.testing.assert_close(frequencies, logits.softmax(-1), atol=0.03, rtol=0)
        torch.testing.assert_close(logprobs, logits.log_softmax(-1)[tokens - offset])


def test_the_ratio_is_against_the_whole_vocabulary():
    from rich.console import Console

    result = show("title", {OURS: [1.0, 1.0, 9.0], WHOLE: [3.0, 3.0, 0.1]}, Console(quiet=True))
    assert result["ratio"] == 3.0
