"""The suite `text`: has training moved what the policy says of plain texts, which no reward looks at?

Perplexity over the text vocabulary (the rows of `lm_head` that are no image tokens), and the KL divergence of the
policy from a starting one at every token, exact over that vocabulary. Both per token, pooled over texts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blip3o_grpo.configs import ConfigError
from blip3o_grpo.policies import PromptEncoder, PromptError
from blip3o_grpo.rewards.benchmarks import digest
from blip3o_grpo.rewards.suites import Measure, ReadingData, ReadingSuite
from blip3o_grpo.rollout.texts import encode_texts, load_texts, text_file

if TYPE_CHECKING:
    from blip3o_grpo.policies import BLIP3oNext

KL, NLL = "text_kl", "text_nll"
TEXTS_AT_ONCE = 8
"""Of one forward pass: some 250 tokens, whose log-probs over the released model's text vocabulary are 0.2 GB."""


def read(path: Path | None) -> ReadingData:
    """The texts of a file, or those that come along.

    Raises:
        ConfigError: whatever is wrong with them, in one line.
    """
    file = text_file(path)
    try:
        texts = load_texts(path)
    except PromptError as error:
        raise ConfigError(f"--data: {error}") from None
    return ReadingData(file, {text.id: text for text in texts}, digest(file.read_bytes()))


def check(folder: Path, data: ReadingData) -> None:
    """Every text fits the policy's context; raises PromptError."""
    encode_texts(list(data.items.values()), PromptEncoder.from_pretrained(folder, plain=True), str(data.file))


def measure(
    folder: Path, against: Path | None, items: Mapping[str, Any], see: Callable[[int], None]
) -> dict[str, dict[str, tuple[float, float]]]:
    """Sums over each text's tokens, and their number, of surprise and of KL(start || policy), in nats."""
    if against is not None:
        check_vocabulary(folder, against)
    policy = _load(folder)
    start = None if against is None else _load(against)
    found: dict[str, dict[str, tuple[float, float]]] = {NLL: {}} if start is None else {KL: {}, NLL: {}}
    ids = list(items)
    for first in range(0, len(ids), TEXTS_AT_ONCE):
        names = ids[first : first + TEXTS_AT_ONCE]
        texts = encode_texts([items[name] for name in names], policy.prompts, str(folder))
        for measured, sums in zip(found, _sums(policy, start, texts), strict=True):
            counts = (len(text) - 1 for text in texts)
            found[measured] |= dict(zip(names, zip(sums, counts, strict=True), strict=True))
        see(len(found[NLL]))
    return found


def check_vocabulary(folder: Path, against: Path) -> None:
    """Distributions of two policies can be compared: they are over the same tokens.

    Raises:
        ConfigError: they are not.
    """
    first, second = (
        PromptEncoder.from_pretrained(each, plain=True).tokenizer.get_vocab() for each in (folder, against)
    )
    if first != second:
        raise ConfigError(f"{folder} and {against} have different vocabularies, so no distance of their words is known")


def _load(folder: Path) -> BLIP3oNext:
    import torch

    from blip3o_grpo.policies import BLIP3oNext

    return BLIP3oNext.from_pretrained(folder, parts=("ar",), device="cuda" if torch.cuda.is_available() else "cpu")


def _sums(policy: BLIP3oNext, start: BLIP3oNext | None, texts: list[list[int]]) -> list[list[float]]:
    """By text, KL where there is a start, and surprise."""
    import torch

    from blip3o_grpo.policies.blip3o_next.text import (
        followed,
        pad_texts,
        sum_by_row,
        text_logprobs,
        text_targets,
        token_kl,
    )

    with torch.no_grad():
        ids, mask = pad_texts(texts, policy.ar.device)
        places = followed(mask)
        logprobs = text_logprobs(policy.ar, ids, mask, policy.image_tokens)
        targets = text_targets(ids, places, policy.image_tokens)
        values = [-logprobs.gather(1, targets[:, None])[:, 0]]
        if start is not None:
            values.insert(0, token_kl(logprobs, text_logprobs(start.ar, ids, mask, start.image_tokens)))
        return [sum_by_row(each.double(), places).tolist() for each in values]


SUITE = ReadingSuite(
    set_name="texts",
    measures=(
        Measure(KL, "KL from the start, nats per token", lower_is_better=True, at_start=0.0),
        Measure(NLL, "surprise, nats per token", lower_is_better=True, also=("perplexity", math.exp)),
    ),
    read=read,
    check=check,
    measure=measure,
)
