"""Text-rendering training prompts: scene x carrier of the text x phrase of one to six words, with `target_text`.

'A photo of a neon sign that reads "Golden Bakery" above the entrance of a small shop, at dusk.'
"""

from __future__ import annotations

import hashlib
import random
import re
from collections import defaultdict
from typing import Any

from blip3o_grpo.configs import ConfigError
from blip3o_grpo.prompt_data.overlap import HeldOut, normalised
from blip3o_grpo.prompt_data.text_words import CARRIERS, PHRASES, READS, SCENES, SLOTS, STYLES

MAX_WORDS = 6
CAPITALS_SHARE = 0.15
"""Share of phrases written in capitals throughout; the others are in title case."""
HELDOUT_SHARE = 16
"""One in so many phrases belongs to the held-out split."""
PATIENCE = 10_000
"""Draws in a row without a new prompt after which there are taken to be no more."""


def generate(
    count: int, seed: int, held_out: HeldOut | None = None, *, heldout: bool | None = None
) -> list[dict[str, Any]]:
    """`count` distinct records `{"prompt", "target_text"}`; the same arguments give the same records.

    All phrase lengths from 1 to `MAX_WORDS` are equally likely.

    Args:
        held_out: prompts that must not be made.
        heldout: only phrases of the held-out split, or only of the other one; None: all.

    Raises:
        ConfigError: count below 1, or more than there are distinct prompts.
    """
    if count < 1:
        raise ConfigError(f"count must be at least 1, not {count}")
    held_out = held_out or HeldOut([])
    rng = random.Random(seed)
    records: list[dict[str, Any]] = []
    made: set[str] = set()
    misses = 0
    while len(records) < count:
        record = draw(rng)
        key = normalised(record["prompt"])
        other_split = heldout is not None and is_heldout(record["target_text"]) != heldout
        if other_split or key in made or held_out.find(record["prompt"], record):
            misses += 1
            if misses == PATIENCE:
                raise ConfigError(f"only {len(records)} distinct text prompts could be made; ask for fewer")
            continue
        misses = 0
        made.add(key)
        records.append(record)
    return records


def is_heldout(phrase: str) -> bool:
    """Whether a phrase, in any spelling with capitals, belongs to the held-out split."""
    return int(hashlib.sha256(normalised(phrase).encode()).hexdigest(), 16) % HELDOUT_SHARE == 0


def draw(rng: random.Random) -> dict[str, Any]:
    """One record at random."""
    kind, template = rng.choice(TEMPLATES[rng.randint(1, MAX_WORDS)])
    phrase = _fill(template, rng)
    if rng.random() < CAPITALS_SHARE:
        phrase = phrase.upper()
    carrier, where, surroundings = rng.choice(CARRIERS[kind])
    reads = rng.choice(READS).format(words="words" if " " in phrase else "word")
    sentence = f'{rng.choice(STYLES)}{carrier} {reads} "{phrase}" {where}, {rng.choice(SCENES[surroundings])}.'
    return {"prompt": sentence[0].upper() + sentence[1:], "target_text": phrase}


def _fill(template: str, rng: random.Random) -> str:
    """The template with a word in each slot; a slot that occurs again gets another word."""
    left = {name: rng.sample(words, len(words)) for name, words in SLOTS.items() if f"{{{name}}}" in template}
    return re.sub(r"\{(\w+)\}", lambda slot: left[slot[1]].pop(), template)


def _by_length() -> dict[int, list[tuple[str, str]]]:
    templates = defaultdict(list)
    for kind, phrases in PHRASES.items():
        for template in phrases:
            templates[len(template.split())].append((kind, template))
    return dict(templates)


TEMPLATES = _by_length()
"""Number of words to the (kind, template) pairs of that length."""
